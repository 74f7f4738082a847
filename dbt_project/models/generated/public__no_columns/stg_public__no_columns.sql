{{ config(materialized='view') }}

{%- set columns = {} %}

{{ headwater_remaining(ref('base_public__no_columns'), columns=columns) }}
