{{ config(materialized='view') }}

{%- set columns = {
    'order_id': 'BIGINT',
    'customer_id': 'BIGINT',
    'status': 'VARCHAR',
    'amount': 'DECIMAL(12,2)',
    'placed_at': 'TIMESTAMP WITH TIME ZONE',
} %}

{{ headwater_current(ref('base_public__orders'), columns=columns) }}
