// Reads docs/vectors.json as a client: what is a message, means what the file says; what is none, is refused.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
)

const maxRequest = 64 << 10 // bytes: the limit that the vectors are made for

type vector struct {
	Means, Hex, Kind, To string
	Repeat               struct {
		Hex   string
		Times int
	}
	Message any
}

func conform(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil {
		log.Fatal(err)
	}
	checked := 0
	for _, group := range []string{"good", "refused", "broken", "partial"} {
		var vectors []vector
		numbers := json.NewDecoder(bytes.NewReader(file[group]))
		numbers.UseNumber()
		if err := numbers.Decode(&vectors); err != nil {
			log.Fatal(group, ": ", err)
		}
		for _, each := range vectors {
			if each.To == "daemon" {
				continue
			}
			if err := check(group, each); err != nil {
				log.Fatalf("%s: %s: %v", group, each.Means, err)
			}
			checked++
		}
	}
	fmt.Printf("%d vectors\n", checked)
}

func check(group string, v vector) error {
	data, err := hex.DecodeString(v.Hex + strings.Repeat(v.Repeat.Hex, v.Repeat.Times))
	if err != nil {
		return err
	}
	message, rest, err := read(data, maxRequest)
	switch group {
	case "partial":
		if !errors.Is(err, errUnfinished) {
			return fmt.Errorf("expected to wait for the rest, found %v", err)
		}
		return nil
	case "broken":
		if err == nil {
			_, err = replyOf(message)
		}
		if err == nil || errors.Is(err, errUnfinished) {
			return errors.New("expected a refusal")
		}
		return nil
	}
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("expected one message, found %v and %d bytes more", err, len(rest))
	}
	if (group == "refused" || v.Kind == "request") && !bytes.Equal(encode(nil, message), data) {
		return fmt.Errorf("expected these bytes, packed %x", encode(nil, message))
	}
	if group == "good" && !same(message, v.Message) {
		return fmt.Errorf("expected %v, found %v", v.Message, message)
	}
	if group == "good" && v.Kind != "request" {
		_, err = replyOf(message)
	}
	return err
}

// same says whether a message means what JSON says.
func same(found, said any) bool {
	switch found := found.(type) {
	case int64:
		return said == json.Number(fmt.Sprint(found))
	case float64:
		number, isNumber := said.(json.Number)
		value, err := number.Float64()
		return isNumber && err == nil && value == found
	case []any:
		items, isArray := said.([]any)
		equal := isArray && len(items) == len(found)
		for i := 0; equal && i < len(found); i++ {
			equal = same(found[i], items[i])
		}
		return equal
	case object:
		members, isMap := said.(map[string]any)
		equal := isMap && len(members) == len(found)
		for i := 0; equal && i < len(found); i++ {
			equal = same(found[i].value, members[found[i].key])
		}
		return equal
	}
	return found == said
}
