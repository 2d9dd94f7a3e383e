// Calls an API with a token from brokerd by docs/protocol.md: Go, with its standard library alone.
// Usage: go run client.go codec.go GRANT URL, or: … vectors FILE, which reads docs/vectors.json
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

const maxAnswer = 16 << 20 // bytes

type client struct {
	socket net.Conn
	sent   int64
	unread []byte
}

func connect() (*client, error) {
	path := os.Getenv("BROKERD_SOCKET")
	if path == "" {
		path = "/run/brokerd/brokerd.sock"
	}
	socket, err := net.Dial("unix", path)
	return &client{socket: socket}, err
}

// call sends a request and waits for its answer.
func (c *client) call(method string, params object) (object, error) {
	c.sent++
	if _, err := c.socket.Write(encode(nil, []any{int64(0), c.sent, method, []any{params}})); err != nil {
		return nil, err
	}
	for {
		found, err := c.receive()
		if err != nil {
			return nil, err
		}
		if found.event != "" || found.id != nil && found.id != c.sent {
			continue // an event, or the answer to another request
		}
		if failure, failed := found.failure.(object); failed {
			return nil, fmt.Errorf("no token: %v", failure.get("message"))
		}
		result, _ := found.result.(object)
		return result, nil
	}
}

func (c *client) receive() (reply, error) {
	piece := make([]byte, 64<<10)
	for {
		message, rest, err := read(c.unread, maxAnswer)
		if !errors.Is(err, errUnfinished) {
			c.unread = rest
			if err != nil {
				return reply{}, err
			}
			return replyOf(message)
		}
		n, err := c.socket.Read(piece)
		if err != nil {
			return reply{}, err
		}
		c.unread = append(c.unread, piece[:n]...)
	}
}

// refused names the token that the API refused; a long one, by its hash.
func refused(grant, token string) object {
	if len(token) > 60_000 {
		sum := sha256.Sum256([]byte(token))
		return object{{"grant", grant}, {"refused_sha256", hex.EncodeToString(sum[:])}}
	}
	return object{{"grant", grant}, {"refused", token}}
}

func send(url string, token object) *http.Response {
	present, given := token.get("present").(string)
	if !given {
		present = "Authorization: Bearer {access_token}"
	}
	value, _ := token.get("value").(string)
	name, header, _ := strings.Cut(strings.ReplaceAll(present, "{access_token}", value), ": ")
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set(name, header)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	return answer
}

func main() {
	log.SetFlags(0)
	if os.Args[1] == "vectors" {
		conform(os.Args[2])
		return
	}
	grant, url := os.Args[1], os.Args[2]
	broker, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	token, err := broker.call("get", object{{"grant", grant}})
	if err != nil {
		log.Fatal(err)
	}
	answer := send(url, token)
	if answer.StatusCode == 401 { // the API refused the token before its time: report it, once
		value, _ := token.get("value").(string)
		if token, err = broker.call("get", refused(grant, value)); err != nil {
			log.Fatal(err)
		}
		answer = send(url, token)
	}
	if answer.StatusCode != 200 {
		log.Fatalf("%s answered %s", url, answer.Status)
	}
	io.Copy(os.Stdout, answer.Body)
}
