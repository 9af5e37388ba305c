// Incident J in C++ put right: the socket has an owner, whose destructor closes it on every path.
//
//     login_statistics_fixed PORT_OF_STATSD        (statsd listens there over UDP only)

#include <arpa/inet.h>
#include <cstdlib>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "../pace.h"

class Socket {
  public:
    explicit Socket(int type) : number_(socket(AF_INET, type | SOCK_CLOEXEC, 0)) {}
    ~Socket()
    {
        if (number_ >= 0)
            close(number_);
    }
    Socket(const Socket &) = delete;
    Socket &operator=(const Socket &) = delete;
    int number() const { return number_; }

  private:
    int number_;
};

static bool count(uint16_t port, const std::string &what)
{
    sockaddr_in address{};
    address.sin_family = AF_INET, address.sin_port = htons(port), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const Socket statsd(SOCK_STREAM);
    if (connect(statsd.number(), reinterpret_cast<sockaddr *>(&address), sizeof address) != 0)
        return false;
    const std::string line = what + ":1|c\n";
    return send(statsd.number(), line.data(), line.size(), MSG_NOSIGNAL) >= 0;
}

int main(int, char **words)
{
    for (unsigned login = 0; pace_next(login, 20); login++)
        count(static_cast<uint16_t>(atoi(words[1])), "logins");
}
