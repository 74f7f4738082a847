{{ config(materialized='view') }}

{%- set columns = {
    'sku': 'VARCHAR',
    'price': 'DECIMAL(4,4)',
    'valid_from': 'DATE',
} %}

{{ headwater_current(ref('base_public__price_list'), columns=columns) }}
