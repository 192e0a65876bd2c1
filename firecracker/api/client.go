package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes. The largest that a VMM gives is its configuration.
const maxAnswer = 1 << 20

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
	http *http.Client
}

// New returns a client of the VMM that dial connects to. It connects at the first call.
func New(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxConnsPerHost:        1,
			MaxIdleConns:           1,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			Proxy:                  nil,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// NewUnix returns a client of the VMM whose socket is at path, of at most 107 bytes.
func NewUnix(path string) *Client {
	return New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
}

// Close closes the connection. It may be called more than once.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// call makes one request. A nil body is none: Firecracker refuses a GET with one. A nil answer is ignored.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, content)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return callError(ctx, method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return callError(ctx, method, path, err)
	}
	if err := parse(response.StatusCode, text, answer); err != nil {
		if fault := (*Fault)(nil); errors.As(err, &fault) {
			fault.Method, fault.Path = method, path
			return fault
		}
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func callError(ctx context.Context, method, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s: %w", method, path, cause)
	}
	return fmt.Errorf("%s %s: %w: %w", method, path, ErrGone, errors.Unwrap(err))
}

// parse reads an answer of the VMM.
func parse(status int, text []byte, answer any) error {
	if len(text) > maxAnswer {
		return fmt.Errorf("%w: more than %d bytes", ErrAnswer, maxAnswer)
	}
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
