// The timer put right: the descriptor is a member with a destructor of its own, which runs also if the constructor of
// what holds it throws. The delay is still wrong; that costs a retry and no descriptor.
#include <stdexcept>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

#include "../pace.h"

class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() { close(number_); }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    int number() const { return number_; }

  private:
    int number_;
};

class Timer {
  public:
    explicit Timer(long delay_ms) : descriptor_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC))
    {
        const itimerspec when{{0, 0}, {delay_ms / 1000, delay_ms % 1000 * 1000000}};
        if (timerfd_settime(descriptor_.number(), 0, &when, nullptr) != 0)
            throw std::system_error(errno, std::generic_category(), "retry timer");
    }

  private:
    Descriptor descriptor_;
};

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
