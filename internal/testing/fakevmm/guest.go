//go:build linux

package fakevmm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Kernel is what the fake boots: a file that holds it as JSON.
type Kernel struct {
	Text  string `json:"text"`            // Written to the console.
	Reset bool   `json:"reset,omitempty"` // The guest resets then: the VMM ends with status 0.
}

// EchoPort is the vsock port at which all guests echo. At the others nobody listens.
const EchoPort = 7

// resetDelay is how long a guest that resets runs.
const resetDelay = 50 * time.Millisecond

// boot is the guest's start.
func (p *program) boot() error {
	text, err := os.ReadFile(text(p.vmm.set["/boot-source"]["kernel_image_path"]))
	if err != nil {
		return err
	}
	var kernel Kernel
	json.Unmarshal(text, &kernel) // any other says nothing
	io.WriteString(os.Stdout, kernel.Text)
	if kernel.Reset {
		time.AfterFunc(resetDelay, p.ctrlAltDel)
	}
	return p.listen()
}

// ctrlAltDel is how a guest ends: it resets.
func (p *program) ctrlAltDel() {
	if faults, err := readFaults(p.binary); err == nil && faults.Deaf {
		return
	}
	p.once.Do(func() { close(p.reset) })
}

// listen serves the vsock device's socket, if there is one.
func (p *program) listen() error {
	raw := p.vmm.set["/vsock"]["uds_path"]
	if raw == nil {
		return nil
	}
	listener, err := net.Listen("unix", text(raw))
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.echo(conn)
		}
	}()
	return nil
}

// echo is one connection of the host's: "CONNECT port", and the guest's answer.
func (p *program) echo(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	if faults, err := readFaults(p.binary); err == nil && faults.DeafVsock {
		reader.Peek(1) // until the host gives up
		return
	}
	if err != nil || strings.TrimSpace(line) != fmt.Sprintf("CONNECT %d", EchoPort) {
		return // as the real one: closed without a word
	}
	fmt.Fprintln(conn, "OK 1073741824")
	io.Copy(conn, reader)
}
