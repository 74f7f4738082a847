{{ config(materialized='view') }}

{%- set columns = {
    'order_id': 'BIGINT',
    'line': 'SMALLINT',
    'sku': 'VARCHAR',
    'quantity': 'INTEGER',
} %}

{{ headwater_current(ref('base_sales__order_lines'), columns=columns) }}
