#include "src/keyspace/dots.hpp"

#include <algorithm>
#include <charconv>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {
namespace {

template <class Number>
const char* read_number(const char* p, const char* end, Number& number) {
  return std::from_chars(p, end, number).ptr;
}

}  // namespace

// The text is our own. What a person has made of it in SQL ends at the first thing that it cannot be.
Dots::Dots(const Keyspace& keyspace, const FieldView& member) {
  const char* p = member.value.data();
  const char* const end = p + member.value.size();
  while (p < end) {
    Dot dot;
    p = read_number(p, end, dot.at.site);
    if (p == end || *p++ != '=') break;
    p = read_number(p, end, dot.at.version);
    dot.removed = p < end && *p == '-';
    if (dot.removed) ++p;
    merge(dot);
    if (p < end && *p++ != ' ') break;
  }
  if (dots_.empty()) dots_.push_back({{member.version, keyspace.site_id(member.site)}, member.deleted});
}

bool Dots::merge(const Dot& dot) {
  const auto known = std::find_if(dots_.begin(), dots_.end(),
                                  [&](const Dot& other) { return other.at.site == dot.at.site; });
  if (known != dots_.end()) {
    if (std::pair(known->at, known->removed) >= std::pair(dot.at, dot.removed)) return false;
    dots_.erase(known);
  }
  const auto place =
      std::find_if(dots_.begin(), dots_.end(), [&](const Dot& other) { return other.at < dot.at; });
  dots_.insert(place, dot);
  return true;
}

bool Dots::drop_older(const Point& at) {
  return std::erase_if(dots_, [&](const Dot& dot) { return dot.at <= at; }) > 0;
}

void Dots::forget(Version stable) {
  const Point kept = live() ? newest().at : Point{};
  std::erase_if(dots_,
                [&](const Dot& dot) { return dot.removed && dot.at.version <= stable && dot.at != kept; });
}

bool Dots::live() const {
  return std::any_of(dots_.begin(), dots_.end(), [](const Dot& dot) { return !dot.removed; });
}

std::string Dots::text() const {
  if (dots_.size() == 1) return {};
  std::string text;
  for (const Dot& dot : dots_) {
    if (!text.empty()) text.push_back(' ');
    text.append(std::to_string(dot.at.site)).append("=").append(std::to_string(dot.at.version));
    if (dot.removed) text.push_back('-');
  }
  return text;
}

}  // namespace isthmus
