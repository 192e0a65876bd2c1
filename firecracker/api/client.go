package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes. The largest that a VMM gives is its configuration.
const maxAnswer = 1 << 20

// maxHead bounds an answer's header, in bytes.
const maxHead = 64 << 10

// ErrGone is returned when nobody answers at the socket: the VMM has ended, or has not begun to listen.
var ErrGone = errors.New("no VMM answers")

// ErrAnswer is returned for an answer that no VMM should give.
var ErrAnswer = errors.New("not an answer of Firecracker's API")

// Fault is a request that the VMM refused.
type Fault struct {
	Method, Path string
	Status       int    // HTTP status: 400 for most.
	Message      string // fault_message, in the VMM's words.
}

// Error returns "PUT /actions: 400: message".
func (f *Fault) Error() string {
	return fmt.Sprintf("%s %s: %d: %s", f.Method, f.Path, f.Status, f.Message)
}

// Client talks to one VMM over one connection, which is kept. It may be used by many goroutines at once; the VMM answers one request at a time.
type Client struct {
	dial func(ctx context.Context) (net.Conn, error)
	turn chan struct{} // holds one token while nobody calls

	conn net.Conn // nil before the first call, and after one that went wrong
	in   *bufio.Reader
	left io.LimitedReader // of the answer that is read
}

// New returns a client of the VMM that dial connects to. It connects at the first call.
func New(dial func(ctx context.Context) (net.Conn, error)) *Client {
	c := &Client{dial: dial, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// NewUnix returns a client of the VMM whose socket is at path, of at most 107 bytes.
func NewUnix(path string) *Client {
	return New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
}

// Close closes the connection, once the call under way has ended. It may be called more than once; a call after it connects anew.
func (c *Client) Close() error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	return c.hangUp()
}

func (c *Client) hangUp() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// call makes one request. A nil body is none: Firecracker refuses a GET with one. A nil answer is ignored.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var content []byte
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		content = text
	}
	select {
	case <-c.turn:
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", method, path, context.Cause(ctx))
	}
	status, text, err := c.exchange(ctx, method, path, content)
	if err != nil {
		c.hangUp() // what is left of the answer is nobody's
	}
	c.turn <- struct{}{}
	if err == nil {
		err = parse(status, text, answer)
	}
	if fault := (*Fault)(nil); errors.As(err, &fault) {
		fault.Method, fault.Path = method, path
		return fault
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// exchange sends a request and reads its answer. The context's end interrupts it.
func (c *Client) exchange(ctx context.Context, method, path string, content []byte) (status int, text []byte, err error) {
	if c.conn == nil {
		if c.conn, err = c.dial(ctx); err != nil {
			c.conn = nil
			return 0, nil, notDialed(ctx, err)
		}
		c.left.R = c.conn
		c.in = bufio.NewReader(&c.left)
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil { // the deadline may be set at any time from now on
			c.hangUp()
		}
	}()
	if _, err := conn.Write(request(method, path, content)); err != nil {
		return 0, nil, c.broken(ctx, err)
	}
	c.left.N = maxHead + maxAnswer + 1
	response, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return 0, nil, c.broken(ctx, err)
	}
	defer response.Body.Close()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, c.broken(ctx, err)
	}
	if len(text) > maxAnswer {
		return 0, nil, fmt.Errorf("%w: more than %d bytes", ErrAnswer, maxAnswer)
	}
	if response.Close {
		c.hangUp()
	}
	return response.StatusCode, text, nil
}

// request returns a request's bytes. The path is escaped by whoever puts an id into it.
func request(method, path string, content []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n", method, path)
	if content != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(content))
	}
	b.WriteString("\r\n")
	b.Write(content)
	return b.Bytes()
}

// notDialed tells why there is no connection: the caller's context, nobody who listens, or what dial found.
func notDialed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// broken tells why there is no answer on a connection: the caller's context, a VMM that has gone, or an answer that is none.
func (c *Client) broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var system *os.SyscallError
	if c.left.N > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) || errors.As(err, &system) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return fmt.Errorf("%w: %w", ErrAnswer, err)
}

// parse reads an answer of the VMM.
func parse(status int, text []byte, answer any) error {
	if status < 200 || status > 299 {
		var fault struct {
			Message string `json:"fault_message"`
		}
		if err := json.Unmarshal(text, &fault); err != nil {
			return &Fault{Status: status, Message: string(text)}
		}
		return &Fault{Status: status, Message: fault.Message}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
}
