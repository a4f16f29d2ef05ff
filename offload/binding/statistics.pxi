# Counters of the data plane, as plain numbers.
QUEUE_SECONDS_BOUNDS = tuple(2**k / 1e6 for k in range(COUNTER_BOUNDS))
RUN_SECONDS_BOUNDS = QUEUE_SECONDS_BOUNDS

_UNAVAILABLE = 2**64 - 1


cdef list _counts(const histogram *it):
    return [counter_read(&it.buckets[i]) for i in range(COUNTER_BUCKETS)]


cdef dict _operations(const counters *all_, unsigned algorithm, list backends):
    """C numbers backends from 1; 0 means that the operation was not run."""
    cdef uint64_t count
    found = {}
    names = ["none", *backends]
    for status in range(RPC_STATUSES):
        for ran_on in range(len(names)):
            count = counters_operations(all_, algorithm, status, ran_on)
            if count:
                found[_text(rpc_status_name(status)), names[ran_on]] = count
    return found


cdef dict _batches(const counters *all_, unsigned algorithm, list backends):
    cdef uint64_t count
    found = {}
    for backend in range(len(backends)):
        for reason in range(BATCH_REASONS):
            for size in range(1, KERNEL_LANES + 1):
                count = counters_batches(all_, algorithm, backend, reason, size)
                if count:
                    found[backends[backend], _text(batch_reason_name(<batch_reason><int>reason)), size] = count
    return found


cdef dict _backend_us(const cost_model *costs, unsigned algorithm, list backends):
    found = {}
    for backend, name in enumerate(backends):
        times = [cost_model_ns(costs, backend, <kernel_algorithm>algorithm, n) for n in range(1, KERNEL_LANES + 1)]
        if _UNAVAILABLE not in times:
            found[name] = [t / 1e3 for t in times]
    return found


cdef dict _class_statistics(const counters *all_, const dataplane_numbers *numbers, unsigned algorithm, list backends):
    cdef const class_counters *it = &all_.classes[algorithm]
    return {
        "algorithm": _text(kernel_algorithm_name(<kernel_algorithm>algorithm)),
        "operations": _operations(all_, algorithm, backends),
        "batches": _batches(all_, algorithm, backends),
        "queue_seconds": _counts(&it.queue),
        "queue_seconds_sum": counter_read(&it.queue.sum_ns) / 1e9,
        "run_seconds": _counts(&it.run),
        "run_seconds_sum": counter_read(&it.run.sum_ns) / 1e9,
        "faults": kernel_faults(<kernel_algorithm>algorithm),
        "queued": numbers.queued_by_class[algorithm],
        "crossover": numbers.crossover[algorithm],
        "backend_us": _backend_us(&numbers.costs, algorithm, backends),
    }


cdef dict _statistics(c_dataplane *plane):
    cdef dataplane_numbers numbers
    cdef const counters *all_ = dataplane_counters(plane)
    cdef refusal_log *refusals = dataplane_refusals(plane)
    with nogil:
        dataplane_read(plane, &numbers)
    backends = [_text(numbers.backend_names[i]) for i in range(numbers.backends)]
    return {
        "classes": [_class_statistics(all_, &numbers, i, backends) for i in range(KERNEL_ALGORITHMS)],
        "refusals": {
            _text(refusal_reason_name(<refusal_reason>i)): refusals_count(refusals, <refusal_reason>i)
            for i in range(REFUSAL_REASONS)
        },
        "connections": counter_read(&all_.connections),
        "connections_total": counter_read(&all_.connections_total),
        "streams": counter_read(&all_.streams),
        "watchers": counter_read(&all_.watchers),
        "queued": numbers.queued,
        "draining": bool(numbers.draining),
        "backend": backends[-1],
        "backends": backends,
        "secret_memory": {
            "kind": secret_memory_kind(),
            "used": secret_memory_used(),
            "reserved": secret_memory_reserved(),
        },
    }
