//go:build linux

package guest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// scripted is an agent that does what the test says, on connections without any buffer.
type scripted func(conn net.Conn, request *http.Request)

func (s scripted) Dial(context.Context, uint32) (net.Conn, error) {
	host, agent := net.Pipe()
	go func() {
		request, err := http.ReadRequest(bufio.NewReader(agent))
		if err != nil {
			return
		}
		io.Copy(io.Discard, request.Body)
		s(agent, request)
	}()
	return host, nil
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.Upgrade + "\r\n" + wire.HeaderStdin + ": 0\r\n\r\n"

// within fails the test when f does not return.
func within(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it does not return")
		return nil
	}
}

func TestContextEndsACommandWhoseAgentReadsNothing(t *testing.T) {
	signals := make(chan string, 1)
	reads := make(chan int)
	deaf := scripted(func(conn net.Conn, request *http.Request) {
		if request.URL.Path == wire.PathSignal {
			signals <- request.Method
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			return
		}
		io.WriteString(conn, switching)
		io.ReadFull(conn, make([]byte, <-reads))
		reads <- 0
	})
	for name, c := range map[string]struct {
		stdin io.Reader
		reads int // Bytes, behind which the host waits for more to be read.
	}{"without input": {nil, 0}, "with more input than the window": {bytes.NewReader(make([]byte, 2*wire.Window)), 1}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := guest.Command(deaf, "cat")
			cmd.Stdin = c.stdin
			if err := within(t, func() error { return cmd.Start(ctx) }); err != nil {
				t.Fatal(err)
			}
			reads <- c.reads
			<-reads
			cancel()
			if err := within(t, cmd.Wait); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if len(signals) != 1 || <-signals != "POST" {
				t.Error("the command was not killed")
			}
		})
	}
}

func TestInputThatNobodyReadsIsLetGo(t *testing.T) {
	a := guesttest.New(t)
	before := goleak.IgnoreCurrent()
	c := guest.Command(a, "true")
	c.Stdin = bytes.NewReader(make([]byte, 64<<20))
	if err := within(t, func() error { return c.Run(t.Context()) }); err != nil {
		t.Error(err)
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}
