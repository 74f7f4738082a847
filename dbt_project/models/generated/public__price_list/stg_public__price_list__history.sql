{{ config(materialized='view') }}

{%- set columns = {
    'sku': 'VARCHAR',
    'price': 'DECIMAL(4,4)',
    'valid_from': 'DATE',
} %}

{{
    headwater_history(
        ref('base_public__price_list__history'),
        columns=columns,
        valid_from='row_from',
        valid_to='row_to',
        current='row_is_current',
    )
}}
