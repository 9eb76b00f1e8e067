// SPDX-License-Identifier: Apache-2.0
// Every named maximum of the project, with the reason for its number. A maximum that a user may
// change has its default here and its hard bound beside it.
#ifndef SORA_LIMITS_H
#define SORA_LIMITS_H

// --- model shape: bounds on what a model file may claim, well above any model a CPU serves ---
#define SORA_LAYER_COUNT_MAX 256
#define SORA_WIDTH_MAX 65536        // hidden and intermediate width
#define SORA_VOCAB_SIZE_MAX 1048576 // four times the largest vocabulary in use
#define SORA_HEAD_DIM_MAX 512
#define SORA_CONTEXT_MAX 131072

// --- files ---
#define SORA_TENSOR_COUNT_MAX 65536 // 256 layers x 7 projections x 2 = 3,584 in an adapter
#define SORA_SAFETENSORS_HEADER_BYTES_MAX (100u << 20) // the safetensors library's own bound
#define SORA_TENSOR_NAME_BYTES_MAX 256
#define SORA_TENSOR_RANK_MAX 4 // GGUF's own bound on dimensions
#define SORA_GGUF_KV_COUNT_MAX 65536
#define SORA_GGUF_ARRAY_COUNT_MAX (16u << 20) // merges of the largest vocabularies: under 2 M
#define SORA_ADAPTER_BYTES_MAX (1u << 30)     // rank 64 on an 8 B model is 340 MB in bf16
#define SORA_JSON_DEPTH_MAX 32                // tool schemas nest about 10 deep
#define SORA_JSON_BYTES_MAX (64u << 20)
#define SORA_JSON_VALUES_MAX (4u << 20) // a tokenizer.json of 256 k words has under 2 M

// --- adapters ---
#define SORA_ADAPTER_NAME_BYTES_MAX 128 // vLLM's and OpenAI's names are under 100
#define SORA_TENANT_BYTES_MAX 63        // as long as a DNS label, which tenants are often named by
#define SORA_STORED_NAME_BYTES_MAX (SORA_TENANT_BYTES_MAX + 1 + SORA_ADAPTER_NAME_BYTES_MAX)
#define SORA_ADAPTER_VERSION_MAX 1000000
#define SORA_ADAPTER_MEMORY_PART 4      // of the machine's memory, 1/4 is for adapters by default
#define SORA_ADAPTER_WAIT_US 30000000   // a request waits so long for room in memory: as draining
#define SORA_ADAPTER_PATIENCE_US 250000 // then others wait behind it; a change of places costs 5 ms
#define SORA_ADAPTER_WAITERS_MAX 64     // requests that wait for room; each holds one HTTP thread
#define SORA_ADAPTER_PACKERS_MAX 2      // loads that compute at once: the steps need processors
#define SORA_ADAPTER_COUNT_MAX 100000   // names in one store; the registry's map takes 50 MB then

// --- shared catalog ---
#define SORA_CATALOG_URL_BYTES_MAX 4096 // a connection URL with certificates' paths is under 1 KB
#define SORA_CATALOG_PART_BYTES (4u << 20) // of an adapter's file in one row; one statement each
#define SORA_CATALOG_CONNECT_S 5           // for one address
#define SORA_CATALOG_STATEMENT_MS 10000    // the database gives a statement up after so long
#define SORA_CATALOG_ANSWER_MS 12000       // and the connection is given up when it did not
#define SORA_CATALOG_RETRY_MS_MAX 2000     // between two tries to connect, at most
#define SORA_CATALOG_LOOK_US 3000000       // looks for changes without having been told
#define SORA_CATALOG_ORPHAN_S 3600         // a file that no version names is an upload cut off

// --- serving ---
#define SORA_BODY_BYTES_MAX (8u << 20) // a 128 k-token prompt is about 0.6 MB of text
#define SORA_SEQS_MAX 256              // sequences that may run at once (hard bound)
#define SORA_SEQS_DEFAULT 32
#define SORA_STEP_ROWS_MAX 512       // rows in one step; bounds activation memory and delay
#define SORA_STEP_LOGIT_ROWS_MAX 256 // rows of a step that ask for logits: 50 MB at 49 k words
#define SORA_QUEUE_REQUESTS_MAX 1024 // waiting requests; beyond it: 429
#define SORA_REQUEST_CHOICES_MAX 16  // n and best_of
#define SORA_REQUEST_PROMPTS_MAX 64  // prompts in one request
#define SORA_REQUEST_ADAPTERS_MAX 8  // composed for one request; each costs what it costs alone
#define SORA_STOP_COUNT_MAX 16
#define SORA_STOP_BYTES_MAX 256
#define SORA_LOGPROBS_MAX 50
#define SORA_LOGIT_BIAS_COUNT_MAX 1024
#define SORA_KV_BLOCK_TOKENS 16 // tokens in one KV block
#define SORA_THREADS_MAX 256
#define SORA_REQUEST_SEQS_MAX 128       // prompts x choices of one request
#define SORA_STOP_TOKEN_COUNT_MAX 64    // stop_token_ids
#define SORA_BODY_VALUES_MAX (1u << 20) // JSON values of one body: 64 prompts of 16 k token ids
#define SORA_BODY_IDLE_MS 10000   // a client that sends or reads nothing for so long is dropped
#define SORA_BODY_RATE_BYTES 8192 // slowest body in bytes a second, after the first idle time
#define SORA_BODY_DRAIN_BYTES_MAX (64u << 20) // of a refused body, read so that the client sees why
#define SORA_UPLOAD_BYTES_MAX (2ull << 30)    // adapter bodies on their way in, over all requests
#define SORA_REPLY_BYTES_MAX (256u << 20)     // 128 sequences with 50 log-probabilities a token
#define SORA_EVENT_BYTES_MAX (256u << 20) // event ring of one request: 500 k tokens with 50 each
#define SORA_QUEUE_REQUESTS_DEFAULT 128   // each waiting request holds one HTTP thread
#define SORA_HTTP_SPARE_THREADS 64        // for uploads, lists, health and idle keep-alive
#define SORA_HTTP_KEEP_ALIVE_MS 5000      // an idle connection holds a thread for so long
#define SORA_HTTP_STACK_BYTES (2u << 20)  // of a handler: tokenizers and SQLite included
#define SORA_STEP_ROWS_DEFAULT 256        // rows the planner fills a step with; keeps decode smooth
#define SORA_STEP_MS_DEFAULT 100          // pause that a long prompt may cause those who generate
#define SORA_STEP_MS_MAX 60000
#define SORA_FAIR_FLOWS_MAX 8192  // tenants and adapters with a token counter; 1 MB
#define SORA_FAIR_TOKEN_COST 2    // of a generated token in prompt tokens: what it takes
#define SORA_FAIR_WAIT_US 2000000 // after which a waiting sequence counts as old
#define SORA_FAIR_OLDEST_TURN 4   // every so many admissions one goes to the oldest
#define SORA_PREFILL_ROWS_MIN 16  // of a prompt in a step, even behind a full batch
#define SORA_ELASTIC_AT_DEFAULT SORA_SEQS_DEFAULT // requests: the places are taken then
#define SORA_ELASTIC_AT_MAX 65536                 // above any queue: never reached
#define SORA_ELASTIC_RANK_DEFAULT 4               // of the 16 that training begins with
#define SORA_DRAIN_US 30000000                    // running requests get so long after SIGTERM
#define SORA_STREAM_COMMENT_US 15000000 // a ':' line in a silent stream, so that proxies keep it
#define SORA_METRICS_ADAPTERS_MAX 100   // adapters with labels of their own in /metrics
#define SORA_CARD_CACHE_COUNT 4096      // rendered adapter facts by digest, about 4 KB each
#define SORA_MULTIPART_PARTS_MAX 16     // a PEFT pair has two
#define SORA_PRELOAD_COUNT_MAX 256      // --adapter on one command line
#define SORA_CONFIG_BYTES_MAX (1 << 20) // every option has one line, some dozens of bytes each

// --- access ---
#define SORA_KEY_COUNT_MAX 16384           // revoked ones included; a table of them takes 12 MB
#define SORA_KEY_BYTES_MIN 16              // a shorter one in a key file can be guessed
#define SORA_KEY_BYTES_MAX 256             // a JWT is longer, but is no key
#define SORA_KEY_NAME_BYTES_MAX 64         // a person or a program
#define SORA_KEY_ADAPTERS_BYTES_MAX 512    // the list of adapters that a key is held to
#define SORA_KEY_FILE_BYTES_MAX (4u << 20) // all keys at their longest would be 6 MB; none are
#define SORA_TENANT_COUNT_MAX 16384        // seen since the start; as many as keys
#define SORA_RATE_MAX 1000000000000ll    // of any limit a tenant can have: a terabyte, 1e12 tokens
#define SORA_AUDIT_PAGE_MAX 1000         // records in one answer, about 500 bytes each
#define SORA_AUDIT_OUTCOME_BYTES_MAX 200 // enough for the first line of what went wrong
#define SORA_ACCESS_POLL_US 250000       // new and revoked keys hold within twice this

// --- text ---
#define SORA_TEXT_BYTES_MAX (64u << 20) // one text to tokenize; above any body or training line
#define SORA_WORD_BYTES_MAX (2u << 20) // one pre-token; BPE works on 32 bytes for each of its bytes

// --- training ---
#define SORA_TRAIN_LINE_BYTES_MAX (4u << 20)
#define SORA_TRAIN_RANK_MAX 1024
#define SORA_TRAIN_DATA_BYTES_MAX (1u << 30) // a data file; about 250 M tokens
#define SORA_TRAIN_VISITS_MAX (1 << 27)      // examples x epochs x stages; their order is 512 MB
#define SORA_TRAIN_CHOICES_MAX 64            // of one example; CLINC150 aside, tasks have under 10
#define SORA_TRAIN_MESSAGES_MAX 1024         // turns of one conversation
#define SORA_EVAL_GENERATE_MAX 256           // tokens generated for one exact-match answer
#define SORA_XI_COUNT_MAX 64                 // stages of a schedule

// --- load test ---
#define SORA_LOADTEST_MODELS_MAX 16384 // names in one plan; histograms of all take 330 MB then
#define SORA_LOADTEST_SLOTS 512        // of the figures over time; a longer run gets wider slots
#define SORA_LOADTEST_MARKS_MAX 4096   // churn marks kept; a picture shows fewer
#define SORA_LOADTEST_SLO_TERMS_MAX 16 // three latencies, a few quantiles each
#define SORA_LOADTEST_POINTS_MAX 256   // tries of a search for the highest rate
#define SORA_LOADTEST_RUNS_MAX 8       // files side by side; more colours are not told apart
#define SORA_LOADTEST_REQUESTS_MAX (1 << 20) // of one plan, 64 bytes each; 12 days at 1 a second
#define SORA_LOADTEST_RUNNING_MAX 8192       // connections at once; beyond it a request is late
#define SORA_LOADTEST_GROUPS_MAX 8           // kinds of traffic in one scenario
#define SORA_LOADTEST_CHURN_MAX 65536        // uploads, updates and deletions of one plan
#define SORA_LOADTEST_CHURN_FILES_MAX 64     // adapter files kept in memory for them
#define SORA_LOADTEST_FILE_BYTES_MAX (64u << 20)    // a trace (2 M lines), a scenario, a key
#define SORA_LOADTEST_EVENT_BYTES_MAX (1u << 20)    // one event of a stream; they are under 1 KB
#define SORA_LOADTEST_REPLY_BYTES_MAX (16u << 20)   // a whole reply, or the text of a stream
#define SORA_LOADTEST_VERIFY_BYTES_MAX (512u << 20) // replies kept to compare others with
#define SORA_LOADTEST_RATE_MAX 100000.0             // requests a second that may be asked for

#endif
