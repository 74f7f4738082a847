{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_versions',
        unique_key=['c0_bool', 'c13_date32_day_', '_hw_seq'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'c0_bool': 'BOOLEAN',
    'c1_int8': 'TINYINT',
    'c2_int16': 'SMALLINT',
    'c3_int32': 'INTEGER',
    'c4_int64': 'BIGINT',
    'c5_uint8': 'UTINYINT',
    'c6_uint16': 'USMALLINT',
    'c7_uint32': 'UINTEGER',
    'c8_uint64': 'UBIGINT',
    'c9_float': 'FLOAT',
    'c10_double': 'DOUBLE',
    'c11_string': 'VARCHAR',
    'c12_binary': 'BLOB',
    'c13_date32_day_': 'DATE',
    'c14_time64_us_': 'TIME',
    'c15_timestamp_us_': 'TIMESTAMP',
    'c16_timestamp_us__tz_UTC_': 'TIMESTAMP WITH TIME ZONE',
    'c17_decimal128_38__10_': 'DECIMAL(38,10)',
} %}

{{
    headwater_versions(
        source('shop', 'public__every_type'),
        key=['c0_bool', 'c13_date32_day_'],
        columns=columns,
        valid_from='valid_from',
        valid_to='valid_to',
        current='is_current',
        open_end='null',
    )
}}
