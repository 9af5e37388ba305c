// Incident J in C++: each login is reported to statsd over TCP, where nobody listens; the error path does not close.
//
//     login_statistics PORT_OF_STATSD        (statsd listens there over UDP only)

#include <arpa/inet.h>
#include <cstdlib>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "../pace.h"

class Statsd {
  public:
    explicit Statsd(uint16_t port)
    {
        address_.sin_family = AF_INET;
        address_.sin_port = htons(port);
        address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }

    bool init()
    {
        socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); // casebook: socket
        if (socket_ < 0)
            return false;
        if (connect(socket_, reinterpret_cast<sockaddr *>(&address_), sizeof address_) != 0) {
            socket_ = -1; // so that nobody uses it
            return false;
        }
        return true;
    }

    void count(const std::string &what)
    {
        if (!init())
            return;
        const std::string line = what + ":1|c\n";
        if (send(socket_, line.data(), line.size(), MSG_NOSIGNAL) < 0)
            perror("statsd");
        close(socket_);
    }

  private:
    sockaddr_in address_{};
    int socket_ = -1;
};

int main(int, char **words)
{
    Statsd statsd(static_cast<uint16_t>(atoi(words[1])));
    for (unsigned login = 0; pace_next(login, 20); login++)
        statsd.count("logins");
}
