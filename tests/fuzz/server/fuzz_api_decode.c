// SPDX-License-Identifier: Apache-2.0
// Bodies of requests. The first byte chooses the decoder, the rest is the body.
#include <stddef.h>
#include <stdint.h>

#include "server/api_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct api_limits limits = {.vocab_size = 1000, .context_max = 2048};
    struct api_request request;
    struct api_error error;
    bool strings;
    sora_status status = SORA_MALFORMED;
    if (size == 0)
        return 0;
    const char *body = (const char *)data + 1;
    switch (data[0] & 7) {
    case 0:
        status = api_decode_completion(body, size - 1, &limits, &request, &error);
        break;
    case 1:
        status = api_decode_chat(body, size - 1, &limits, &request, &error);
        break;
    case 2:
        status = api_decode_tokenize(body, size - 1, &request, &strings, &error);
        break;
    case 4:
        status = api_decode_tgi(body, size - 1, &limits, size % 2 == 0, &request, &error);
        break;
    default:
        status = api_decode_detokenize(body, size - 1, &limits, &request, &error);
    }
    if (status == SORA_OK)
        api_request_deinit(&request);
    return 0;
}
