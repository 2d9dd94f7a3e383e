// Calls an API with a token from brokerd over HTTP: Go. Usage: go run app.go GRANT URL
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

type token struct{ Access_token, Header, Message string }

func dial(ctx context.Context, _, _ string) (net.Conn, error) {
	socket := os.Getenv("BROKERD_HTTP_SOCKET")
	if socket == "" {
		socket = "/run/brokerd/http.sock"
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", socket)
}

var brokerd = http.Client{Transport: &http.Transport{DialContext: dial}}

func send(client *http.Client, method, url, header, body string) *http.Response {
	request, _ := http.NewRequest(method, url, strings.NewReader(body))
	if name, value, found := strings.Cut(header, ": "); found {
		request.Header.Set(name, value)
	}
	answer, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	return answer
}

func get(method, path, body string) (found token) {
	answer := send(&brokerd, method, "http://brokerd"+path, "", body)
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil || answer.StatusCode != 200 {
		log.Fatal("no token: ", found.Message, err)
	}
	return found
}

func main() {
	grant, url := os.Args[1], os.Args[2]
	t := get("GET", "/v1/token/"+grant, "")
	answer := send(http.DefaultClient, "GET", url, t.Header, "")
	if answer.StatusCode == 401 { // the API refused the token before its time: report it, once
		answer = send(http.DefaultClient, "GET", url, get("POST", "/v1/refused/"+grant, t.Access_token).Header, "")
	}
	if answer.StatusCode != 200 {
		log.Fatalf("%s answered %s", url, answer.Status)
	}
	io.Copy(os.Stdout, answer.Body)
}
