{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_versions',
        unique_key=['sku', '_hw_seq'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'sku': 'VARCHAR',
    'price': 'DECIMAL(4,4)',
    'valid_from': 'DATE',
} %}

{{
    headwater_versions(
        source('shop', 'public__price_list'),
        key=['sku'],
        columns=columns,
        valid_from='row_from',
        valid_to='row_to',
        current='row_is_current',
        open_end="cast('9999-12-31 00:00:00+00:00' as TIMESTAMP WITH TIME ZONE)",
    )
}}
