// The parts of llama.cpp that have no C interface, or whose C interface lets C++ exceptions out.
//
// Every function is noexcept and returns a status; texts are allocated with malloc and freed with
// llama_rs_string_free. Nothing here keeps state.

#include "json-schema-to-grammar.h"
#include "json.h"
#include "llama-ext.h"
#include "llama-grammar.h"
#include "llama.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

constexpr int32_t STATUS_OK = 0;
constexpr int32_t STATUS_EXCEPTION = -100;

char * copy_text(const std::string & text) noexcept {
    auto * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy != nullptr) {
        std::memcpy(copy, text.c_str(), text.size() + 1);
    }
    return copy;
}

// Runs `body`, turns an exception into STATUS_EXCEPTION and its text into `*error`.
template <typename Body> int32_t guarded(char ** error, Body body) noexcept {
    try {
        body();
        return STATUS_OK;
    } catch (const std::exception & exception) {
        if (error != nullptr) {
            *error = copy_text(exception.what());
        }
    } catch (...) {
    }
    return STATUS_EXCEPTION;
}

const char * skip_space(const char * text) {
    while (*text == ' ' || *text == '\t' || *text == '\r' || *text == '\n' || *text == '#') {
        if (*text == '#') {
            text += std::strcspn(text, "\r\n");
        } else {
            text++;
        }
    }
    return text;
}

// The rule name behind an id, for a rule that is used but has no definition.
std::string rule_name(const llama_grammar_parser & parser, uint32_t id) {
    for (const auto & [name, symbol] : parser.symbol_ids) {
        if (symbol == id) {
            return name;
        }
    }
    return "?";
}

void require_defined(const llama_grammar_parser & parser) {
    for (const auto & rule : parser.rules) {
        for (const auto & element : rule) {
            const bool reference = element.type == LLAMA_GRETYPE_RULE_REF;
            if (reference && (element.value >= parser.rules.size() || parser.rules[element.value].empty())) {
                throw std::runtime_error("undefined rule '" + rule_name(parser, element.value) + "'");
            }
        }
    }
}

} // namespace

extern "C" {

struct firepot_buffer {
    char device[64];
    uint64_t model_bytes;
    uint64_t context_bytes;
    uint64_t compute_bytes;
};

// Writes one entry for each buffer type of the context, and their number to `*count` (which may exceed `capacity`).
int32_t firepot_memory_breakdown(
    const llama_context * ctx, firepot_buffer * out, size_t capacity, size_t * count) noexcept {
    return guarded(nullptr, [&] {
        *count = 0;
        for (const auto & [type, bytes] : llama_get_memory_breakdown(ctx)) {
            auto * device = ggml_backend_buft_get_device(type);
            const bool host = ggml_backend_buft_is_host(type) || device == nullptr;
            if (*count < capacity) {
                auto & entry = out[*count];
                std::strncpy(entry.device, host ? "CPU" : ggml_backend_dev_name(device), sizeof(entry.device) - 1);
                entry.device[sizeof(entry.device) - 1] = '\0';
                entry.model_bytes = bytes.model;
                entry.context_bytes = bytes.context;
                entry.compute_bytes = bytes.compute;
            }
            ++*count;
        }
    });
}

int32_t firepot_decode(llama_context * ctx, llama_batch batch) noexcept {
    int32_t code = STATUS_EXCEPTION;
    const int32_t status = guarded(nullptr, [&] { code = llama_decode(ctx, batch); });
    return status == STATUS_OK ? code : status;
}

// Like llama_tokenize; `*count` gets its return value.
int32_t firepot_tokenize(
    const llama_vocab * vocab, const char * text, int32_t bytes, llama_token * out, int32_t capacity,
    bool add_special, bool parse_special, int32_t * count) noexcept {
    return guarded(nullptr, [&] {
        *count = llama_tokenize(vocab, text, bytes, out, capacity, add_special, parse_special);
    });
}

int32_t firepot_schema_to_grammar(const char * schema, char ** grammar, char ** error) noexcept {
    return guarded(error, [&] {
        *grammar = copy_text(json_schema_to_grammar(common_json::parse(schema), true));
    });
}

// Parses as llama_sampler_init_grammar does, which prints the reason of a failure and does not return it.
int32_t firepot_grammar_check(const llama_vocab * vocab, const char * grammar, char ** error) noexcept {
    return guarded(error, [&] {
        llama_grammar_parser parser(vocab);
        for (const char * rest = skip_space(grammar); *rest != '\0';) {
            rest = parser.parse_rule(rest);
        }
        if (parser.symbol_ids.find("root") == parser.symbol_ids.end()) {
            throw std::runtime_error("there is no rule 'root'");
        }
        require_defined(parser);
    });
}

int32_t firepot_grammar_apply(llama_sampler * sampler, llama_token_data * tokens, size_t count) noexcept {
    return guarded(nullptr, [&] {
        llama_token_data_array array = { tokens, count, -1, false };
        llama_sampler_apply(sampler, &array);
    });
}

llama_sampler * firepot_grammar_clone(const llama_sampler * sampler) noexcept {
    llama_sampler * copy = nullptr;
    guarded(nullptr, [&] { copy = llama_sampler_clone(sampler); });
    return copy;
}

} // extern "C"
