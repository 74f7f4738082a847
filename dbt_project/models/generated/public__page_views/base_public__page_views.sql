{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_replace',
        unique_key='_hw_seq',
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'url': 'VARCHAR',
    'seconds': 'DOUBLE',
} %}

{{ headwater_log(source('shop', 'public__page_views'), columns=columns) }}
