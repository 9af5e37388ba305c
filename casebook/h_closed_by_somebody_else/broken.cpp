// Incident H in C++: a global closes its descriptors twice, the second time while the process exits. By then the numbers are
// those of libzmq's own epoll, and a reconnect timer that fires in its thread, between two destructors, aborts the process.
#include "client.hpp"

#include <vector>

#include <fcntl.h>

// The log files of the process.
class Log {
  public:
    Log() {
        for (int file = 0; file < 8; file++)
            files_.push_back(open("/dev/null", O_WRONLY | O_CLOEXEC));
    }
    ~Log() { Close(); }

    // Called when the configuration says that nothing is to be logged, and by the destructor.
    void Close() {
        for (int file : files_)
            close(file); // casebook: closes
    }

  private:
    std::vector<int> files_;
};

static Flush flush; // destroyed after the log
static Log log_files;

int main() {
    log_files.Close();
    work_while_the_server_is_away();
    return 0;
}
