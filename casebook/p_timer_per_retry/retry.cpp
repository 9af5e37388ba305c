// A timer for each retry, whose constructor throws after it has made it: no object, no destructor, no close().
#include <stdexcept>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

#include "../pace.h"

class Timer {
  public:
    explicit Timer(long delay_ms)
    {
        number_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC); // casebook: timer
        const itimerspec when{{0, 0}, {delay_ms / 1000, delay_ms % 1000 * 1000000}};
        if (timerfd_settime(number_, 0, &when, nullptr) != 0) // EINVAL: the delay became negative
            throw std::system_error(errno, std::generic_category(), "retry timer");
    }
    ~Timer() { close(number_); }

  private:
    int number_;
};

// Doubles from attempt to attempt, in 16 bits that overflow: from the 10th on it is negative.
static short backoff_ms(unsigned attempt) { return static_cast<short>(100u << (attempt < 9 ? attempt : 9)); }

int main()
{
    for (unsigned attempt = 0; pace_next(attempt, 10); attempt++) {
        try {
            const Timer timer(backoff_ms(attempt));
        } catch (const std::system_error &) {
            continue; // try again at the next turn
        }
    }
}
