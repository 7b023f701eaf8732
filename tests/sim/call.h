/*
 * call.h - each call of the store by a scenario is watched (memory.c, "what a call owes"): what it loads from the medium is no older
 * than the call, and when it is over the device has what it stored.
 */
#ifndef GISMO_SIM_CALL_H
#define GISMO_SIM_CALL_H

#include "sim.h"

#define SIM_CALL(call)                                                                                                 \
    __extension__({                                                                                                    \
        sim_call_begins();                                                                                             \
        __typeof__(call) result_ = (call);                                                                             \
        sim_call_ends();                                                                                               \
        result_;                                                                                                       \
    })

#define gismo_open(...) SIM_CALL(gismo_open(__VA_ARGS__))
#define gismo_close(...) SIM_CALL(gismo_close(__VA_ARGS__))
#define gismo_tick(...) SIM_CALL(gismo_tick(__VA_ARGS__))
#define gismo_put(...) SIM_CALL(gismo_put(__VA_ARGS__))
#define gismo_create(...) SIM_CALL(gismo_create(__VA_ARGS__))
#define gismo_seal(...) SIM_CALL(gismo_seal(__VA_ARGS__))
#define gismo_get(...) SIM_CALL(gismo_get(__VA_ARGS__))
#define gismo_release(...) SIM_CALL(gismo_release(__VA_ARGS__))
#define gismo_delete(...) SIM_CALL(gismo_delete(__VA_ARGS__))
#define gismo_lookup(...) SIM_CALL(gismo_lookup(__VA_ARGS__))
#define gismo_next(...) SIM_CALL(gismo_next(__VA_ARGS__))
#define gismo_peek(...) SIM_CALL(gismo_peek(__VA_ARGS__))
#define gismo_list(...) SIM_CALL(gismo_list(__VA_ARGS__))
#define gismo_follow(...) SIM_CALL(gismo_follow(__VA_ARGS__))
#define gismo_host(...) SIM_CALL(gismo_host(__VA_ARGS__))
#define gismo_get_info(...) SIM_CALL(gismo_get_info(__VA_ARGS__))
#define gismo_get_stats(...) SIM_CALL(gismo_get_stats(__VA_ARGS__))
#define gismo_fsck(...) SIM_CALL(gismo_fsck(__VA_ARGS__))
#define gismo_evict_host(...) SIM_CALL(gismo_evict_host(__VA_ARGS__))

#endif
