{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_replace',
        unique_key='_hw_seq',
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {} %}

{{ headwater_log(source('shop', 'public__no_columns'), columns=columns) }}
