{#- No two rows have the same values in all of these columns. -#}
{% test headwater_unique_together(model, columns) %}
select {{ headwater_list(columns) }}, count(*) as rows_with_this_key
from {{ model }}
group by {{ headwater_list(columns) }}
having count(*) > 1
{% endtest %}


{#- A key has at most one version that is not ended, and it is its newest. -#}
{% test headwater_one_open_version(model, key, current) %}
with ranked as (

    select
        *,
        row_number() over (partition by {{ headwater_list(key) }} order by _hw_seq desc) as _hw_age
    from {{ model }}

)

select {{ headwater_list(key) }}, _hw_seq
from ranked
where
    ({{ adapter.quote(current) }} and (_hw_age > 1 or _hw_seq_to is not null))
    or (not {{ adapter.quote(current) }} and _hw_seq_to is null)
{% endtest %}


{#- A version of a key ends no later than the next one begins, in the order of the log. -#}
{% test headwater_no_overlap(model, key) %}
with versions as (

    select
        *,
        lead(_hw_seq) over (partition by {{ headwater_list(key) }} order by _hw_seq) as _hw_following
    from {{ model }}

)

select {{ headwater_list(key) }}, _hw_seq, _hw_seq_to, _hw_following
from versions
where
    _hw_seq_to <= _hw_seq
    or (_hw_following is not null and (_hw_seq_to is null or _hw_seq_to > _hw_following))
{% endtest %}
