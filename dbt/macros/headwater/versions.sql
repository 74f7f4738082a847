{#-
    Every version of every key that the window touches, with the span it held: what the strategy headwater_versions
    merges. Order is `_hw_seq` alone; commit times may run backwards. A delete is a row as well: it ends the version
    before it, whenever that arrives.
-#}
{% macro headwater_versions(changes, key, columns, valid_from, valid_to, current, open_end='null') %}
{%- set incremental = is_incremental() -%}
{%- set have = headwater_columns_of(this) if incremental and execute else none -%}
with changes as (

    select
        {{- headwater_typed(columns) }}
        _hw_op,
        _hw_seq,
        _hw_at,
        _hw_text
    from {{ changes }}
    where {{ headwater_window() }}

),
{% if incremental %}
touched as (

    select {{ headwater_list(key) }}, min(_hw_seq) as _hw_first
    from changes
    group by {{ headwater_list(key) }}

),

-- versions this model holds already, unless they ended before the first change of their key in the window
held as (

    select
        {{- headwater_typed(columns, of='this_model', have=have) }}
        this_model._hw_op,
        this_model._hw_seq,
        this_model._hw_at,
        this_model._hw_text
    from {{ this }} as this_model
    inner join touched on {{ headwater_same_key(key, 'this_model', 'touched') }}
    where
        (this_model._hw_seq_to is null or this_model._hw_seq_to >= touched._hw_first)
        and not exists (
            select 1 from changes
            where {{ headwater_same_key(key, 'changes', 'this_model') }} and changes._hw_seq = this_model._hw_seq
        )

),

events as (

    select * from changes
    union all
    select * from held

),
{% else %}
events as (

    select * from changes

),
{% endif %}
spans as (

    select
        *,
        lead(_hw_seq) over (partition by {{ headwater_list(key) }} order by _hw_seq) as _hw_seq_to,
        lead(_hw_at) over (partition by {{ headwater_list(key) }} order by _hw_seq) as _hw_at_to
    from events

),

versions as (

    select
        {{- headwater_named(columns) }}
        _hw_at as {{ adapter.quote(valid_from) }},
        case when _hw_seq_to is null then {{ open_end }} else _hw_at_to end as {{ adapter.quote(valid_to) }},
        _hw_seq_to is null and _hw_op <> 'd' as {{ adapter.quote(current) }},
        _hw_op,
        _hw_seq,
        _hw_seq_to,
        _hw_at,
        _hw_text
    from spans

)

select * from versions
{% endmacro %}


{#- The history people read: the versions that rows had, without the deletes that ended them. -#}
{% macro headwater_history(versions, columns, valid_from, valid_to, current) %}
with versions as (

    select * from {{ versions }}

),

lived as (

    select
        {{- headwater_typed(columns) }}
        {{ adapter.quote(valid_from) }},
        {{ adapter.quote(valid_to) }},
        {{ adapter.quote(current) }},
        _hw_op,
        _hw_seq,
        _hw_seq_to,
        _hw_text
    from versions
    where _hw_op <> 'd'

)

select * from lived
{% endmacro %}
