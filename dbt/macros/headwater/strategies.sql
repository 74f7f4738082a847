{#- How windows are merged. dbt finds a strategy by the exact name get_incremental_<strategy>_sql. -#}

{#- One row for a key: a row gives way only to a newer change, so any window may be applied again. -#}
{% macro get_incremental_headwater_newest_sql(arg_dict) %}
    {{ return(headwater_merge(arg_dict, arg_dict['unique_key'], 'source._hw_seq > target._hw_seq')) }}
{% endmacro %}


{#- One row for a version: a version never changes, but the one after it may become known. -#}
{% macro get_incremental_headwater_versions_sql(arg_dict) %}
    {{ return(headwater_merge(
        arg_dict, arg_dict['unique_key'], 'source._hw_seq_to is distinct from target._hw_seq_to'
    )) }}
{% endmacro %}


{% macro headwater_merge(arg_dict, key, newer) %}
    {{ return(adapter.dispatch('headwater_merge')(arg_dict, key, newer)) }}
{% endmacro %}


{% macro default__headwater_merge(arg_dict, key, newer) %}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='name') | list -%}
    merge into {{ arg_dict['target_relation'] }} as target
    using {{ arg_dict['temp_relation'] }} as source
    on {{ headwater_same_key(key, 'target', 'source') }}
    when matched and {{ newer }} then update set
        {%- for name in columns if name not in key %}
        {{ adapter.quote(name) }} = source.{{ adapter.quote(name) }}{{ ',' if not loop.last }}
        {%- endfor %}
    when not matched then insert ({{ headwater_list(columns) }})
    values ({{ headwater_list(columns, of='source') }})
{% endmacro %}


{#- A log: the changes of a window take the place of those with the same number. -#}
{% macro get_incremental_headwater_replace_sql(arg_dict) %}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='name') | list -%}
    delete from {{ arg_dict['target_relation'] }}
    where _hw_seq in (select _hw_seq from {{ arg_dict['temp_relation'] }});

    insert into {{ arg_dict['target_relation'] }} ({{ headwater_list(columns) }})
    select {{ headwater_list(columns) }} from {{ arg_dict['temp_relation'] }}
{% endmacro %}
