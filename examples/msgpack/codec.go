// MessagePack as docs/protocol.md uses it: text, numbers, arrays, maps with text as keys; no bin, no extension types.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

const (
	maxDepth = 8       // levels of arrays and maps; the message itself is the first
	maxItems = 1 << 20 // of an array or map
)

var errUnfinished = errors.New("the rest of the message is missing")

type member struct {
	key   string
	value any
}

// object is a map, in the order of its bytes.
type object []member

func (o object) get(key string) any {
	for _, each := range o {
		if each.key == key {
			return each.value
		}
	}
	return nil
}

// A reply is an answer [1, id, failure, result], or an event [2, event, [params]].
type reply struct {
	id, failure, result any
	event               string
	params              object
}

func replyOf(message any) (reply, error) {
	items, _ := message.([]any)
	if len(items) == 4 && items[0] == int64(1) {
		id, isNumber := items[1].(int64)
		if isNumber && id >= 0 && id <= math.MaxUint32 || items[1] == nil && items[2] != nil {
			return reply{id: items[1], failure: items[2], result: items[3]}, nil
		}
	}
	if len(items) == 3 && items[0] == int64(2) {
		event, _ := items[1].(string)
		params, _ := items[2].([]any)
		if event != "" && len(params) == 1 {
			if params, isMap := params[0].(object); isMap {
				return reply{event: event, params: params}, nil
			}
		}
	}
	return reply{}, errors.New("expected an answer [1, id, error, result] or an event [2, method, [params]]")
}

// read takes one message from data and returns what follows it.
func read(data []byte, limit int) (any, []byte, error) {
	message, rest, err := decode(data, 1)
	if len(data)-len(rest) > limit {
		return nil, nil, fmt.Errorf("expected a message of at most %d bytes", limit)
	}
	return message, rest, err
}

func decode(data []byte, depth int) (any, []byte, error) {
	if len(data) == 0 {
		return nil, nil, errUnfinished
	}
	kind, data := data[0], data[1:]
	switch {
	case kind < 0x80:
		return int64(kind), data, nil
	case kind < 0x90:
		return decodeMap(data, int(kind&15), depth)
	case kind < 0xa0:
		return decodeArray(data, int(kind&15), depth)
	case kind < 0xc0:
		return decodeText(data, int(kind&31))
	case kind >= 0xe0:
		return int64(int8(kind)), data, nil
	case kind == 0xc0:
		return nil, data, nil
	case kind == 0xc2 || kind == 0xc3:
		return kind == 0xc3, data, nil
	}
	size := map[byte]int{0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8,
		0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}[kind]
	if size == 0 {
		return nil, nil, fmt.Errorf("expected text, a number, an array or a map, found the byte %#x", kind)
	}
	if len(data) < size {
		return nil, nil, errUnfinished
	}
	var bits uint64
	for _, each := range data[:size] {
		bits = bits<<8 | uint64(each)
	}
	data = data[size:]
	switch {
	case kind == 0xca:
		return float64(math.Float32frombits(uint32(bits))), data, nil
	case kind == 0xcb:
		return math.Float64frombits(bits), data, nil
	case kind <= 0xcf && bits > math.MaxInt64:
		return nil, nil, errors.New("expected a number below 2^63")
	case kind <= 0xcf:
		return int64(bits), data, nil
	case kind <= 0xd3:
		shift := 64 - 8*size
		return int64(bits<<shift) >> shift, data, nil
	case kind <= 0xdb:
		return decodeText(data, int(bits))
	case kind <= 0xdd:
		return decodeArray(data, int(bits), depth)
	default:
		return decodeMap(data, int(bits), depth)
	}
}

func decodeText(data []byte, size int) (any, []byte, error) {
	if len(data) < size {
		return nil, nil, errUnfinished
	}
	if !utf8.Valid(data[:size]) {
		return nil, nil, errors.New("expected text in UTF-8")
	}
	return string(data[:size]), data[size:], nil
}

func decodeArray(data []byte, count, depth int) (any, []byte, error) {
	if count > maxItems || depth > maxDepth {
		return nil, nil, fmt.Errorf("expected at most %d items, and %d levels", maxItems, maxDepth)
	}
	items := []any{}
	for ; count > 0; count-- {
		item, rest, err := decode(data, depth+1)
		if err != nil {
			return nil, nil, err
		}
		items, data = append(items, item), rest
	}
	return items, data, nil
}

func decodeMap(data []byte, count, depth int) (any, []byte, error) {
	if count > maxItems {
		return nil, nil, fmt.Errorf("expected at most %d items", maxItems)
	}
	found, data, err := decodeArray(data, 2*count, depth)
	if err != nil {
		return nil, nil, err
	}
	members, items := object{}, found.([]any)
	for ; len(items) > 0; items = items[2:] {
		key, isText := items[0].(string)
		if !isText {
			return nil, nil, errors.New("expected a key that is text")
		}
		members = append(members, member{key, items[1]})
	}
	return members, data, nil
}

func encode(out []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return append(out, 0xc0)
	case bool:
		if v {
			return append(out, 0xc3)
		}
		return append(out, 0xc2)
	case int64:
		return encodeInteger(out, v)
	case float64:
		return binary.BigEndian.AppendUint64(append(out, 0xcb), math.Float64bits(v))
	case string:
		if len(v) > 31 && len(v) < 256 {
			return append(append(out, 0xd9, byte(len(v))), v...)
		}
		return append(encodeSize(out, len(v), 31, 0xa0, 0xda), v...)
	case []any:
		out = encodeSize(out, len(v), 15, 0x90, 0xdc)
		for _, each := range v {
			out = encode(out, each)
		}
	case object:
		out = encodeSize(out, len(v), 15, 0x80, 0xde)
		for _, each := range v {
			out = encode(encode(out, each.key), each.value)
		}
	default:
		panic(fmt.Sprintf("no MessagePack for %T", value))
	}
	return out
}

// encodeSize: in the first byte if it is at most `most`, otherwise in two or four bytes behind it.
func encodeSize(out []byte, size, most int, first, long byte) []byte {
	switch {
	case size <= most:
		return append(out, first|byte(size))
	case size <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(out, long), uint16(size))
	default:
		return binary.BigEndian.AppendUint32(append(out, long+1), uint32(size))
	}
}

func encodeInteger(out []byte, v int64) []byte {
	switch {
	case v >= -32 && v < 128:
		return append(out, byte(v))
	case v >= 0 && v <= math.MaxUint8:
		return append(out, 0xcc, byte(v))
	case v >= 0 && v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(out, 0xcd), uint16(v))
	case v >= 0 && v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(out, 0xce), uint32(v))
	case v >= 0:
		return binary.BigEndian.AppendUint64(append(out, 0xcf), uint64(v))
	default:
		return binary.BigEndian.AppendUint64(append(out, 0xd3), uint64(v))
	}
}
