{{ config(materialized='view') }}

{%- set columns = {
    'order_id': 'BIGINT',
    'customer_id': 'BIGINT',
    'status': 'VARCHAR',
    'amount': 'DECIMAL(12,2)',
    'placed_at': 'TIMESTAMP WITH TIME ZONE',
} %}

{{
    headwater_history(
        ref('base_public__orders__history'),
        columns=columns,
        valid_from='valid_from',
        valid_to='valid_to',
        current='is_current',
    )
}}
