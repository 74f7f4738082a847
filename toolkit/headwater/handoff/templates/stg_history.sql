{{ config(materialized='view'$past_as) }}

{%- set columns = $columns %}

{{
    headwater_history(
        ref('base_${relation}__history'),
        columns=columns,
        valid_from=$valid_from,
        valid_to=$valid_to,
        current=$current,
    )
}}
