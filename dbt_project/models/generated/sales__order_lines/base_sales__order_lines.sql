{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_newest',
        unique_key=['order_id', 'line'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'order_id': 'BIGINT',
    'line': 'SMALLINT',
    'sku': 'VARCHAR',
    'quantity': 'INTEGER',
} %}

{{ headwater_newest(source('shop', 'sales__order_lines'), key=['order_id', 'line'], columns=columns) }}
