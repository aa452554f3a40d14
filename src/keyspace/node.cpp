#include "src/keyspace/node.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include <malloc.h>

namespace isthmus {
namespace {

void* allocate(Heap& heap, std::size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  heap.add(malloc_usable_size(memory));
  return memory;
}

// The same node with other sizes; the old one is freed unless it could be kept in place.
Node* reshape(Heap& heap, Node* node, bool has_registers, std::size_t value_size, bool spare) {
  const std::size_t registers_size = has_registers ? sizeof(Registers) : 0;
  const std::size_t need =
      std::max(sizeof(Node), Node::kHeaderSize + registers_size + node->name_size + value_size);
  const std::size_t usable = malloc_usable_size(node);
  const bool fits = need <= usable && (usable <= 128 || need * 2 >= usable);
  if (has_registers == node->has_registers && fits) {
    node->value_size = static_cast<std::uint32_t>(value_size);
    return node;
  }
  const std::size_t room = spare && need > usable ? need + std::min<std::size_t>(need, 1 << 20) : need;
  Node* fresh = static_cast<Node*>(allocate(heap, room));
  std::memcpy(static_cast<void*>(fresh), node, sizeof(Node));
  fresh->has_registers = has_registers;
  fresh->value_size = static_cast<std::uint32_t>(value_size);
  char* out = fresh->data();
  if (has_registers) {
    const Registers registers = node->registers();
    std::memcpy(out, &registers, sizeof registers);
    out += sizeof registers;
  }
  std::memcpy(out, node->name().data(), node->name_size);
  std::memcpy(out + node->name_size, node->value_data(), std::min<std::size_t>(value_size, node->value_size));
  free_node(heap, node);
  return fresh;
}

}  // namespace

Node* make_node(Heap& heap, std::string_view name, std::string_view value, NodeType type, Version version,
                SiteIndex site) {
  const std::size_t bytes = std::max(sizeof(Node), Node::kHeaderSize + name.size() + value.size());
  Node* node = static_cast<Node*>(allocate(heap, bytes));
  node->next = nullptr;
  node->version = version;
  node->name_size = static_cast<std::uint32_t>(name.size());
  node->value_size = static_cast<std::uint32_t>(value.size());
  node->type = type;
  node->site = site;
  node->has_registers = node->piecewise = node->as_text = node->field_deleted = false;
  node->told = node->awaited = node->counted = false;
  std::memcpy(node->data(), name.data(), name.size());
  if (!value.empty()) std::memcpy(node->data() + name.size(), value.data(), value.size());
  return node;
}

Node* resize_value(Heap& heap, Node* node, std::size_t value_size, bool spare) {
  return reshape(heap, node, node->has_registers, value_size, spare);
}

Node* write_registers(Heap& heap, Node* node, const Registers& registers, bool keep) {
  if (node->has_registers != keep) node = reshape(heap, node, keep, node->value_size, false);
  if (keep) std::memcpy(node->data(), &registers, sizeof registers);
  return node;
}

void free_node(Heap& heap, Node* node) {
  heap.subtract(malloc_usable_size(node));
  std::free(node);
}

std::size_t allocated_bytes(const Node* node) { return malloc_usable_size(const_cast<Node*>(node)); }

}  // namespace isthmus
