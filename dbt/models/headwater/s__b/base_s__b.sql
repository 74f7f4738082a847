{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_newest',
        unique_key=['id'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'id': 'BIGINT',
    'v': 'BIGINT',
} %}

{{ headwater_newest(source('p', 's__b'), key=['id'], columns=columns) }}
