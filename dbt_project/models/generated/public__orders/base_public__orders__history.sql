{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_versions',
        unique_key=['order_id', '_hw_seq'],
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

{{
    headwater_versions(
        source('shop', 'public__orders'),
        key=['order_id'],
        columns=columns,
        valid_from='valid_from',
        valid_to='valid_to',
        current='is_current',
        open_end='null',
    )
}}
