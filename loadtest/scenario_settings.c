// SPDX-License-Identifier: Apache-2.0
// The table of settings. Constant data.
#include "loadtest/scenario.h"

const char *const scenario_arrivals_names[] = {"poisson", "gamma",  "constant",
                                               "trace",   "closed", NULL};

#define HEADING(text) \
    {                 \
        .key = text   \
    }
#define OWN(member) .offset = offsetof(struct scenario, member)
#define GROUP(member) .of_group = true, .offset = offsetof(struct scenario_group, member)
#define TOKENS_MAX SORA_CONTEXT_MAX
#define DAY_S 86400

const struct setting scenario_settings[] = {
    HEADING("When requests are sent"),
    {"arrivals", "KIND",
     "poisson, gamma, constant, trace (all open loops: sent when the plan says, "
     "whatever the server does) or closed (--clients, each sends when it has its reply)",
     SETTING_ARRIVALS, OWN(arrivals)},
    {"rate", "N", "Requests a second of an open loop (1)", SETTING_NUMBER, OWN(rate), .min = 1e-3,
     .max = SORA_LOADTEST_RATE_MAX},
    {"burstiness", "K", "Shape of gamma arrivals: 1 is poisson, below 1 comes in bursts (1)",
     SETTING_NUMBER, OWN(burstiness), .min = 0.01, .max = 1000},
    {"clients", "N", "Clients of a closed loop (8)", SETTING_INT, OWN(clients), .min = 1,
     .max = SORA_LOADTEST_RUNNING_MAX},
    {"requests", "N", "How many requests, the warm-up included (0: as many as the duration holds)",
     SETTING_INT, OWN(requests), .min = 0, .max = SORA_LOADTEST_REQUESTS_MAX},
    {"duration", "TIME",
     "How long requests are sent, after the warm-up: 60, 90s, 5min (30s unless "
     "--requests says how many)",
     SETTING_DURATION, OWN(duration_s), .min = 0, .max = 7 * DAY_S},
    {"warmup", "TIME", "Requests of the first so many seconds are sent and not counted (0)",
     SETTING_DURATION, OWN(warmup_s), .min = 0, .max = DAY_S},
    {"trace", "FILE", "Replays lines of t_ms,adapter,prompt_tokens,output_tokens", SETTING_TEXT,
     OWN(trace)},
    {"speed", "X", "Plays the trace so many times faster (1)", SETTING_NUMBER, OWN(speed),
     .min = 1e-3, .max = 1e6},
    {"seed", "N", "Everything random comes from it: same seed, same requests (1)", SETTING_INT,
     OWN(seed), .min = 0, .max = 9007199254740992.0},

    HEADING("Which adapters"),
    {"adapters", "A,B,...",
     "Names to ask for (default: the made ones, or all that /v1/models "
     "lists); none: the base model alone",
     SETTING_LIST, OWN(adapters)},
    {"adapters_max", "N", "Uses the first so many of those listed (0: all)", SETTING_INT,
     OWN(adapters_max), .min = 0, .max = SORA_LOADTEST_MODELS_MAX},
    {"popularity", "HOW", "uniform, zipf:S or given:5,3,1 (uniform)", SETTING_POPULARITY,
     GROUP(popularity)},
    {"base", "NAME", "The base model's name (default: what /v1/models says)", SETTING_TEXT,
     OWN(base)},
    {"base_share", "SHARE", "Share of the requests that go to the base model (0)", SETTING_SHARE,
     OWN(base_share)},
    {"make", "N",
     "Makes so many adapters for the server's base, uploads them before the run and "
     "deletes them after it (0)",
     SETTING_INT, GROUP(make), .min = 0, .max = SORA_LOADTEST_MODELS_MAX},
    {"ranks", "LENGTH", "Rank of each module of a made adapter; 0 leaves it out (uniform:0:16)",
     SETTING_LENGTH, GROUP(ranks), .min = 0, .max = 512},

    HEADING("What is asked"),
    {"prompt_tokens", "LENGTH", "64, uniform:16:128, lognormal:MEDIAN:SIGMA[:MAX] (32)",
     SETTING_LENGTH, GROUP(prompt_tokens), .min = 1, .max = TOKENS_MAX},
    {"output_tokens", "LENGTH", "The same, as max_tokens (32)", SETTING_LENGTH,
     GROUP(output_tokens), .min = 1, .max = TOKENS_MAX},
    {"prefixes", "N", "Distinct prefixes that prompts of a group share (0: none)", SETTING_INT,
     GROUP(prefixes), .min = 0, .max = 65536},
    {"prefix_tokens", "N", "Tokens of each, before the prompt's own (0)", SETTING_INT,
     GROUP(prefix_tokens), .min = 0, .max = TOKENS_MAX},
    {"stream", "SHARE", "Share of requests whose replies are streamed (1)", SETTING_SHARE,
     GROUP(stream)},
    {"chat", "SHARE",
     "Share of requests to /v1/chat/completions, the others go to "
     "/v1/completions (0)",
     SETTING_SHARE, GROUP(chat)},
    {"drop", "SHARE", "Share of connections that are closed midway (0)", SETTING_SHARE,
     GROUP(drop)},
    {"token_ids", "LOW:HIGH",
     "Prompts are token ids of [LOW, HIGH), exact in length; otherwise "
     "they are English words, about one token each",
     SETTING_TEXT, OWN(token_ids)},
    {"temperature", "T", "0 is greedy (0)", SETTING_NUMBER, OWN(temperature), .min = 0, .max = 2},
    {"ignore_eos", "BOOL", "Sends ignore_eos, so that replies have their full length (true)",
     SETTING_BOOL, OWN(ignore_eos)},
    {"stream_usage", "BOOL", "Asks streams for their token counts (true)", SETTING_BOOL,
     OWN(usage)},

    HEADING("Beside the load"),
    {"churn_rate", "N", "Changes of adapters a second: uploads, updates, deletions (0)",
     SETTING_NUMBER, OWN(churn_rate), .min = 0, .max = 1000},
    {"churn_mix", "U:V:D", "Weights of uploads, updates and deletions (1:1:1)", SETTING_TEXT,
     OWN(churn_mix)},
    {"churn_folder", "DIR", "Uploads the .safetensors files of a folder (default: made ones)",
     SETTING_TEXT, OWN(churn_folder)},
    {"churn_served", "BOOL",
     "Updates the made adapters that are being asked for (false: only "
     "names of its own)",
     SETTING_BOOL, OWN(churn_served)},

    HEADING("What is held against the server"),
    {"verify", "BOOL",
     "Some requests are sent again and their replies must be equal to the byte, "
     "in any mix and then alone (false)",
     SETTING_BOOL, OWN(verify)},
    {"verify_repeat", "SHARE", "Share of requests that repeat an earlier one (0.5)", SETTING_SHARE,
     OWN(verify_repeat)},
    {"slo", "TERMS",
     "Objective such as ttft_p95=500ms,itl_p95=100ms,errors=1%; exit 1 when it "
     "does not hold",
     SETTING_TEXT, OWN(slo)},
    {"timeout", "TIME", "A request that takes longer is an error (10min)", SETTING_DURATION,
     OWN(timeout_s), .min = 0.1, .max = DAY_S},
    {"drain", "TIME", "What still runs so long after the last send is an error (5min)",
     SETTING_DURATION, OWN(drain_s), .min = 0, .max = DAY_S},
    {0},
};
