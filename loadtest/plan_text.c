// SPDX-License-Identifier: Apache-2.0
// Prompts from seeds: common English words, each about one token of a byte-pair vocabulary with its
// space, or token ids. Pure.
#include "loadtest/plan_churn.h"

static const char *const words[] = {
    "about",   "above",   "across", "after",  "again",  "agree",   "air",    "along",  "also",
    "always",  "among",   "animal", "answer", "area",   "around",  "ask",    "away",   "back",
    "ball",    "bank",    "base",   "bear",   "beat",   "begin",   "behind", "best",   "better",
    "between", "bird",    "black",  "bloom",  "blue",   "board",   "boat",   "both",   "bottom",
    "box",     "bring",   "brown",  "build",  "busy",   "call",    "camp",   "carry",  "cat",
    "catch",   "cause",   "cell",   "center", "chair",  "chance",  "chart",  "check",  "chief",
    "choose",  "circle",  "class",  "clear",  "climb",  "clock",   "close",  "cloud",  "coast",
    "cold",    "color",   "common", "cook",   "copy",   "corn",    "cotton", "count",  "cover",
    "cross",   "crowd",   "cry",    "cut",    "dance",  "dark",    "deal",   "deep",   "desert",
    "design",  "differ",  "direct", "doctor", "dollar", "double",  "down",   "draw",   "dream",
    "dress",   "drink",   "drive",  "drop",   "dry",    "during",  "each",   "early",  "earth",
    "east",    "edge",    "eight",  "energy", "engine", "enough",  "enter",  "equal",  "even",
    "ever",    "every",   "exact",  "expect", "fair",   "fall",    "far",    "farm",   "fast",
    "feed",    "feel",    "field",  "fight",  "figure", "fill",    "final",  "find",   "finger",
    "finish",  "fire",    "first",  "fish",   "fit",    "five",    "flat",   "floor",  "flow",
    "fly",     "follow",  "food",   "forest", "form",   "forward", "four",   "free",   "fresh",
    "front",   "fruit",   "full",   "garden", "gas",    "gather",  "gentle", "glad",   "glass",
    "gold",    "grand",   "grass",  "gray",   "great",  "green",   "grow",   "guess",  "guide",
    "habit",   "hair",    "half",   "happy",  "hard",   "hear",    "heart",  "heat",   "heavy",
    "hill",    "history", "hold",   "hole",   "hope",   "horse",   "hot",    "hunt",   "ice",
    "inch",    "iron",    "island", "join",   "jump",   "keep",    "key",    "king",   "knew",
    "lady",    "lake",    "land",   "large",  "last",   "late",    "laugh",  "lead",   "leave",
    "left",    "length",  "less",   "letter", "level",  "lie",     "lift",   "light",  "list",
    "listen",  "locate",  "log",    "lone",   "long",   "loud",    "love",   "low",    "machine",
    "main",    "major",   "map",    "mark",   "market", "master",  "match",  "matter", "may",
    "measure", "meat",    "meet",   "metal",  "method", "middle",  "mile",   "milk",   "mine",
    "modern",  "moment",  "moon",   "motion", "mount",  "move",    "much",   "music",  "narrow",
    "nation",  "nature",  "near",   "neck",
};
#define WORD_COUNT (sizeof words / sizeof words[0])

static void append_words(struct buf *out, uint64_t seed, int32_t count)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int32_t i = 0; i < count; i++) {
        if (out->bytes > 0)
            buf_append(out, " ", 1);
        buf_text(out, words[rng_below(&rng, WORD_COUNT)]);
    }
}

static void append_ids(struct buf *out, const struct plan *plan, uint64_t seed, int32_t count)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int32_t i = 0; i < count; i++) {
        uint64_t range = (uint64_t)(plan->token_high - plan->token_low);
        buf_printf(out, "%s%d", out->data != NULL && out->data[out->bytes - 1] == '[' ? "" : ",",
                   (int)(plan->token_low + (int32_t)rng_below(&rng, range)));
    }
}

static int32_t prefix_tokens(const struct plan *plan, const struct plan_request *request)
{
    return plan_prompt_tokens(plan, request) - request->prompt_tokens;
}

void plan_prefix_text(const struct plan *plan, const struct plan_request *request, struct buf *out)
{
    append_words(out, plan_prefix_seed(plan, request), prefix_tokens(plan, request));
}

void plan_prompt_text(const struct plan_request *request, struct buf *out)
{
    append_words(out, request->prompt_seed, request->prompt_tokens);
}

void plan_prompt_ids(const struct plan *plan, const struct plan_request *request, struct buf *out)
{
    buf_text(out, "[");
    append_ids(out, plan, plan_prefix_seed(plan, request), prefix_tokens(plan, request));
    append_ids(out, plan, request->prompt_seed, request->prompt_tokens);
    buf_text(out, "]");
}
