// The runtime's log since it was last taken, oldest line first.
#pragma once

#include <string>
#include <vector>

namespace pocketfleet {

std::vector<std::string> taken_log();

}  // namespace pocketfleet
