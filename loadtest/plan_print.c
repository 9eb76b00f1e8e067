// SPDX-License-Identifier: Apache-2.0
// A plan as text: for --print-plan, and as a digest that says whether two plans are the same. Pure
// but for plan_print's stream.
#include <string.h>

#include "base/sha256.h"
#include "loadtest/plan.h"

#define LINE_BYTES_MAX 512

static void request_line(const struct plan *plan, int32_t index, struct buf *out)
{
    const struct plan_request *request = &plan->requests[index];
    buf_clear(out);
    buf_printf(out, "%d,", (int)index);
    if (plan->closed)
        buf_text(out, "free");
    else
        buf_printf(out, "%.3f", (double)request->planned_us / 1e3);
    buf_printf(out, ",%s,%d,%d", plan->models->names[request->model],
               (int)plan_prompt_tokens(plan, request), (int)request->output_tokens);
    buf_printf(out, ",%d,%d,%d,%d,%d,%d,%d,%016llx\n", (int)request->prefix, request->stream,
               request->chat, (int)(request->drop_tokens + request->drop_ms), request->warmup,
               (int)request->group, (int)request->content,
               (unsigned long long)request->prompt_seed);
}

static void churn_line(const struct plan *plan, const struct plan_churn *op, struct buf *out)
{
    char name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
    plan_churn_name(plan, op, name, sizeof name);
    buf_clear(out);
    buf_printf(out, "# churn,%.3f,%s,%s\n", (double)op->at_us / 1e3, plan_churn_kind_name(op->kind),
               name);
}

sora_status plan_digest(const struct plan *plan, char hex[65], struct sora_error *err)
{
    struct sha256 *sha = NULL;
    struct buf line;
    sora_status status = sha256_create(&sha, err);
    if (status != SORA_OK)
        return status;
    buf_init(&line, LINE_BYTES_MAX);
    for (int32_t i = 0; i < plan->request_count; i++) {
        request_line(plan, i, &line);
        sha256_update(sha, line.data, line.bytes);
    }
    for (int32_t i = 0; i < plan->churn_count; i++) {
        churn_line(plan, &plan->churn[i], &line);
        sha256_update(sha, line.data, line.bytes);
    }
    sha256_finish(sha, hex);
    buf_deinit(&line);
    return SORA_OK;
}

void plan_print(const struct plan *plan, FILE *out)
{
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    fputs("request,t_ms,model,prompt_tokens,output_tokens,prefix,stream,chat,drop_after,warmup,"
          "group,content,prompt_seed\n",
          out);
    for (int32_t i = 0; i < plan->request_count; i++) {
        request_line(plan, i, &line);
        fwrite(line.data, 1, line.bytes, out);
    }
    for (int32_t i = 0; i < plan->churn_count; i++) {
        churn_line(plan, &plan->churn[i], &line);
        fwrite(line.data, 1, line.bytes, out);
    }
    buf_deinit(&line);
}
