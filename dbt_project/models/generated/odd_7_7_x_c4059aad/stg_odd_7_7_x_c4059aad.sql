{{ config(materialized='view') }}

{%- set columns = {
    'env_var_X_9ef3e06d': 'VARCHAR',
    'endraw_83d338f0': 'VARCHAR',
    'select': 'VARCHAR',
    'Order_6be09082': 'VARCHAR',
    'ORDER_05d3799e': 'VARCHAR',
    'it_s_quoted_0405a293': 'VARCHAR',
    'line_break_0318807b': 'VARCHAR',
    '価格': 'VARCHAR',
} %}

{{ headwater_current(ref('base_odd_7_7_x_c4059aad'), columns=columns) }}
