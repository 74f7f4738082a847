{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_newest',
        unique_key=['sku'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'sku': 'VARCHAR',
    'price': 'DECIMAL(4,4)',
    'valid_from': 'DATE',
} %}

{{ headwater_newest(source('shop', 'public__price_list'), key=['sku'], columns=columns) }}
