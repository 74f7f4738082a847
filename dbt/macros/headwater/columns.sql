{#- Column lists. Names are always quoted: they may be keywords, mixed case or any letters. -#}

{% macro headwater_list(names, of='') -%}
    {%- for name in names -%}
        {{ of ~ '.' if of }}{{ adapter.quote(name) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- One column a line, cast to the type its contract promises. `have` (lower case): columns that are there at all. -#}
{% macro headwater_typed(columns, of='', have=none) -%}
    {%- for name, type in columns.items() %}
        {%- if have is none or name | lower in have %}
        cast({{ of ~ '.' if of }}{{ adapter.quote(name) }} as {{ type }}) as {{ adapter.quote(name) }},
        {%- else %}
        cast(null as {{ type }}) as {{ adapter.quote(name) }},
        {%- endif %}
    {%- endfor %}
{%- endmacro %}


{#- One column a line, as it is. -#}
{% macro headwater_named(columns) -%}
    {%- for name in columns %}
        {{ adapter.quote(name) }},
    {%- endfor %}
{%- endmacro %}


{% macro headwater_same_key(key, left, right) -%}
    {%- for name in key -%}
        {{ left }}.{{ adapter.quote(name) }} = {{ right }}.{{ adapter.quote(name) }}{{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- Columns to compare whole rows by. Text tells -0.0 from 0.0, which `partition by` takes for one. -#}
{% macro headwater_identity(columns) -%}
    {%- for name, type in columns.items() -%}
        {%- if headwater_is_float(type) -%}
            cast({{ adapter.quote(name) }} as {{ dbt.type_string() }}),
        {%- else -%}
            {{ adapter.quote(name) }},
        {%- endif %}
        {#- -#}
        {{ ' ' }}
    {%- endfor -%}
    _hw_text
{%- endmacro %}


{% macro headwater_is_float(type) -%}
    {{ return(type | lower in ['float', 'float4', 'float8', 'float64', 'double', 'double precision', 'real']) }}
{%- endmacro %}


{#- Names of the columns a relation has, lower case. -#}
{% macro headwater_columns_of(relation) -%}
    {{ return(adapter.get_columns_in_relation(relation) | map(attribute='name') | map('lower') | list) }}
{%- endmacro %}
