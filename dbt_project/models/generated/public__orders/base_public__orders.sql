{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_newest',
        unique_key=['order_id'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'order_id': 'BIGINT',
    'customer_id': 'BIGINT',
    'status': 'VARCHAR',
    'amount': 'DECIMAL(12,2)',
    'placed_at': 'TIMESTAMP WITH TIME ZONE',
} %}

{{ headwater_newest(source('shop', 'public__orders'), key=['order_id'], columns=columns) }}
