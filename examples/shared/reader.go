// Reads a grant's token in memory that brokerd keeps current (docs/shared-token.md): Go, with its standard library alone.
// Usage: go run reader.go GRANT, then a line on stdin for each read; or: … check FILE NOW, which reads a copy of the memory.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log"
	"math"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	size                               = 65536
	beat, checksum, sequence, valueAt  = 8, 16, 24, 72
	stateToken, stateNone, stateClosed = 1, 2, 3
	tries                              = 100
	clockBoottime                      = 7
)

var order = binary.LittleEndian // of x86-64 and aarch64; the memory is in the order of the machine

type content struct {
	state             uint32
	value, rest       []byte // rest: a MessagePack map, for the codec of ../msgpack
	expires, lifetime float64
}

func number(memory []byte, at int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&memory[at])))
}

// whole takes one whole content out of the memory.
func whole(memory []byte) (content, error) {
	if string(memory[:8]) != "brokerd\x01" {
		return content{}, errors.New("this is no shared token")
	}
	for try := 0; try < tries; try++ {
		before := number(memory, sequence)
		valueSize, restSize := order.Uint32(memory[36:]), order.Uint32(memory[40:])
		end := valueAt + uint64(valueSize) + uint64(restSize)
		if before%2 == 1 || end > size {
			continue
		}
		data := append([]byte(nil), memory[checksum:end]...)
		after := data[sequence-checksum:]
		if number(memory, sequence) != before || order.Uint64(after) != before || crc32.ChecksumIEEE(after) != order.Uint32(data) {
			continue
		}
		if order.Uint32(after[12:]) != valueSize {
			continue
		}
		payload := after[valueAt-sequence:]
		return content{
			state: order.Uint32(after[8:]), value: payload[:valueSize], rest: payload[valueSize:],
			expires: math.Float64frombits(order.Uint64(after[32:])), lifetime: math.Float64frombits(order.Uint64(after[40:])),
		}, nil
	}
	return content{}, errors.New("it is being written")
}

// usable says whether the token may be used. The beat and the time are looked at for each use.
func (c content) usable(memory []byte, now float64) bool {
	age := now - math.Float64frombits(number(memory, beat))
	return c.state == stateToken && age >= 0 && age < 1 && now < c.expires
}

func boottime() float64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&now)), 0)
	return float64(now.Sec) + float64(now.Nsec)/1e9
}

func say(memory []byte, now float64) {
	found, err := whole(memory)
	switch {
	case err == nil && found.state == stateClosed:
		fmt.Println("closed")
	case err != nil || !found.usable(memory, now):
		fmt.Println("ask by get")
	default:
		fmt.Println(string(found.value))
	}
}

// ask sends the request share and takes the descriptor that comes with its answer.
func ask(broker *net.UnixConn, grant string) (int, error) {
	request := append([]byte("\x94\x00\x01\xa5share\x91\x81\xa5grant\xd9"), byte(len(grant))) // [0, 1, "share", [{…}]]
	if _, err := broker.Write(append(request, grant...)); err != nil {
		return 0, err
	}
	broker.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, room := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := broker.ReadMsgUnix(answer, room)
	if err != nil {
		return 0, err
	}
	messages, err := syscall.ParseSocketControlMessage(room[:n])
	if err != nil || len(messages) != 1 { // an error comes without
		return 0, errors.New("brokerd shares no token")
	}
	descriptors, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) != 1 {
		return 0, errors.New("expected one descriptor")
	}
	return descriptors[0], nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 4 && os.Args[1] == "check" {
		memory := make([]byte, size)
		file, err := os.ReadFile(os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		copy(memory, file)
		now, _ := strconv.ParseFloat(os.Args[3], 64)
		say(memory, now)
		return
	}
	path := os.Getenv("BROKERD_SOCKET")
	if path == "" {
		path = "/run/brokerd/brokerd.sock"
	}
	broker, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}) // stays open: it ends with it
	if err != nil {
		log.Fatal(err)
	}
	descriptor, err := ask(broker, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	memory, err := syscall.Mmap(descriptor, 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	syscall.Close(descriptor)
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		say(memory, boottime())
	}
}
