// Puts large samples on the last shard.
//
// The interface is bindings/router.h, made from Weir's WIT. There is no C library but what lies in
// support/: malloc and free, and a few functions for memory and strings.

#include "router.h"

#include <stdlib.h>
#include <string.h>

typedef exports_weir_policy_lifecycle_environment_t environment_t;
typedef exports_weir_policy_lifecycle_manifest_t manifest_t;
typedef exports_weir_policy_lifecycle_init_error_t init_error_t;
typedef exports_weir_policy_shard_routing_batch_t batch_t;
typedef exports_weir_policy_shard_routing_destination_t destination_t;
typedef exports_weir_policy_shard_routing_list_destination_t destinations_t;

// From how many bytes on a sample is large.
static uint32_t from_bytes;

static bool refuse(init_error_t *error, const char *text) {
  error->tag = EXPORTS_WEIR_POLICY_LIFECYCLE_INIT_ERROR_BAD_SETTINGS;
  router_string_dup(&error->val.bad_settings, text);
  return false;
}

static bool is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// Steps over a text, with white space before it.
static bool take(router_string_t *rest, const char *text) {
  while (rest->len > 0 && is_space(*rest->ptr)) rest->ptr++, rest->len--;
  size_t len = strlen(text);
  if (rest->len < len || memcmp(rest->ptr, text, len) != 0) return false;
  rest->ptr += len, rest->len -= len;
  return true;
}

// Settings are {} or {"from_bytes": NUMBER}: no reader of JSON is needed for that.
static bool read_settings(router_string_t rest) {
  if (!take(&rest, "{")) return false;
  if (take(&rest, "\"from_bytes\"")) {
    if (!take(&rest, ":") || !take(&rest, "")) return false;
    uint64_t number = 0;
    size_t digits = 0;
    for (; rest.len > 0 && *rest.ptr >= '0' && *rest.ptr <= '9'; rest.ptr++, rest.len--, digits++) {
      number = number * 10 + (*rest.ptr - '0');
      if (number > UINT32_MAX) return false;
    }
    if (digits == 0) return false;
    from_bytes = number;
  }
  return take(&rest, "}") && take(&rest, "") && rest.len == 0;
}

bool exports_weir_policy_lifecycle_init(environment_t *environment, manifest_t *manifest,
                                        init_error_t *error) {
  from_bytes = 64 * 1024;
  if (!read_settings(environment->settings)) {
    return refuse(error, "settings: write {\"from_bytes\": NUMBER}, or nothing");
  }
  exports_weir_policy_lifecycle_environment_free(environment);
  memset(manifest, 0, sizeof *manifest);
  router_string_dup(&manifest->name, "my-policy");
  router_string_dup(&manifest->version, "0.1.0");
  manifest->hooks = EXPORTS_WEIR_POLICY_LIFECYCLE_HOOKS_ROUTE;
  manifest->needs = WEIR_POLICY_TYPES_FIELDS_SIZE;
  manifest->route_varies_with = WEIR_POLICY_TYPES_FIELDS_SIZE;
  return true;
}

bool exports_weir_policy_shard_routing_route(uint32_t shards, batch_t *batch,
                                             destinations_t *answers, router_string_t *error) {
  (void)error;
  answers->len = batch->samples.len;
  answers->ptr = malloc(answers->len * sizeof *answers->ptr);
  if (!answers->ptr) abort();
  for (size_t i = 0; i < answers->len; i++) {
    destination_t *answer = &answers->ptr[i];
    if (batch->samples.ptr[i].payload_size >= from_bytes) {
      answer->tag = EXPORTS_WEIR_POLICY_SHARD_ROUTING_DESTINATION_SHARD;
      answer->val.shard = shards - 1;
    } else {
      answer->tag = EXPORTS_WEIR_POLICY_SHARD_ROUTING_DESTINATION_DEFAULT;
    }
  }
  exports_weir_policy_shard_routing_batch_free(batch);
  return true;
}
