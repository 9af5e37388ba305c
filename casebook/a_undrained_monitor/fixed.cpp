// Incident A in C++, put right: the monitor is read for as long as its socket lives, and one socket asks all questions.
#include "client.hpp"

class Datacenter {
  public:
    Datacenter(zmq::context_t &context, const std::string &endpoint) : query_(context, zmq::socket_type::dealer) {
        query_.set(zmq::sockopt::linger, 0);
        query_.set(zmq::sockopt::rcvtimeo, answer_ms);
        query_.connect(endpoint);
    }

    // Each question has a number, so that a late answer is not taken for the next one.
    bool QryServerPort() {
        const std::string question = std::to_string(++asked_);
        query_.send(zmq::buffer(question));
        for (zmq::message_t answer; query_.recv(answer);)
            if (answer.to_string() == question)
                return true;
        return false;
    }

  private:
    zmq::socket_t query_;
    int asked_ = 0;
};

int main() {
    zmq::context_t context(1);
    Datacenter datacenter(context, nearby::answering_server());
    nearby::MortalServer server;
    Session session(context, server.endpoint());
    server.answer_and_die();
    nearby::ready();
    nearby::paced(per_second, [&] {
        while (session.NextEvent() != 0) {
        }
        datacenter.QryServerPort();
    });
}
