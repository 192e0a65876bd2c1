package guest

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
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Dialer reaches the agent. A *microvm.VM is one.
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Errors of the agent's; test with errors.Is.
var (
	// ErrNotFound is returned when the guest has no such program, user, directory or process.
	ErrNotFound = errors.New("not found in the guest")
	// ErrDenied is returned when the guest's system does not let the agent do it.
	ErrDenied = errors.New("denied in the guest")
	// ErrGone is returned when output is asked for that the agent has not kept.
	ErrGone = errors.New("output is not kept any more")
	// ErrReplaced is returned when somebody else has attached to the command.
	ErrReplaced = errors.New("somebody else has attached to the command")
	// ErrAgent is returned when what answers is no agent, or says what no agent should.
	ErrAgent = errors.New("not a guest agent's answer")
)

// maxHeader bounds the header of an answer in bytes.
const maxHeader = 16 << 10

// call makes one request on a connection of its own. A nil answer is ignored.
func call(ctx context.Context, d Dialer, method, path string, body, answer any) error {
	conn, _, response, err := request(ctx, d, method, path, body, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	text, err := content(ctx, conn, response)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return refused(response.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	return nil
}

// content reads an answer's body, at most as much of it as an agent sends. The body is not closed, as that would read the rest: the caller closes the connection.
func content(ctx context.Context, conn *line, response *http.Response) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(response.Body, wire.MaxBody+1))
	if err != nil {
		return nil, broken(ctx, ended(ctx, conn.cause(err)))
	}
	if len(text) > wire.MaxBody {
		return nil, fmt.Errorf("%w: a body of more than %d bytes", ErrAgent, wire.MaxBody)
	}
	return text, nil
}

// verbatim is a body that is sent as it is, and not as JSON.
type verbatim []byte

// late is a body that is made once the connection is there, since it tells the time.
type late func() any

// encode returns what is sent of a body.
func encode(body any) ([]byte, error) {
	var sent []byte
	switch body := body.(type) {
	case nil, late:
	case verbatim:
		sent = body
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = text
	}
	if len(sent) > wire.MaxBody {
		return nil, fmt.Errorf("%w: a request of %d bytes is more than the %d that the agent takes", microvm.ErrInvalid, len(sent), wire.MaxBody)
	}
	return sent, nil
}

// request sends a request and reads the answer's header; the connection is the caller's. The error of a connection is errBroken, unless trying again is of no use.
func request(ctx context.Context, d Dialer, method, path string, body any, upgrade string) (*line, *bufio.Reader, *http.Response, error) {
	sent, err := encode(body)
	if err != nil {
		return nil, nil, nil, err
	}
	dialed, err := d.Dial(ctx, wire.Port)
	if err != nil {
		return nil, nil, nil, broken(ctx, err)
	}
	conn := &line{Conn: dialed}
	if now, ok := body.(late); ok {
		if sent, err = encode(now()); err != nil {
			conn.Close()
			return nil, nil, nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	in, response, err := exchange(conn, method, path, sent, upgrade)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, nil, nil, broken(ctx, ended(ctx, err))
	}
	return conn, in, response, nil
}

func exchange(conn *line, method, path string, body []byte, upgrade string) (*bufio.Reader, *http.Response, error) {
	request, err := http.NewRequest(method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if upgrade != "" {
		request.Header.Set("Connection", "Upgrade")
		request.Header.Set("Upgrade", upgrade)
	}
	out := bufio.NewWriter(conn)
	if err := request.Write(out); err != nil {
		return nil, nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	in := bufio.NewReaderSize(limited, maxHeader)
	response, err := http.ReadResponse(in, request)
	if err != nil && limited.N <= 0 {
		return nil, nil, fmt.Errorf("%w: a header of more than %d bytes", ErrAgent, maxHeader)
	}
	if err != nil {
		return nil, nil, conn.cause(err)
	}
	limited.N = 1 << 62 // what follows has bounds of its own
	return in, response, nil
}

// line is a connection that knows whether reading it failed. Only one goroutine reads.
type line struct {
	net.Conn
	failed bool
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.failed = l.failed || err != nil
	return n, err
}

// SyscallConn shows the connection's socket, where it has one.
func (l *line) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// cause tells why an answer can't be read. Where the connection has not failed it is what the agent said, or how much of it: the next answer would be no better.
func (l *line) cause(err error) error {
	if l.failed {
		return err
	}
	return fmt.Errorf("%w: %w", ErrAgent, err)
}

// ended prefers the context's reason over what it did to the connection.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// refused makes an error of an answer that is no success.
func refused(status int, text []byte) error {
	var e wire.Error
	if err := json.Unmarshal(text, &e); err != nil || e.Code == "" {
		return fmt.Errorf("%w: status %d", ErrAgent, status)
	}
	sentinel := map[string]error{
		wire.CodeNotFound: ErrNotFound, wire.CodeDenied: ErrDenied, wire.CodeBusy: microvm.ErrBusy, wire.CodeInvalid: microvm.ErrInvalid,
		wire.CodeExists: microvm.ErrExists, wire.CodeGone: ErrGone, wire.CodeRefused: syscall.ECONNREFUSED, wire.CodeNoAnswer: microvm.ErrNoAnswer,
		wire.CodeFull: syscall.ENOSPC,
	}[e.Code]
	if sentinel == nil {
		return fmt.Errorf("the guest's agent: %s", clean(e.Message))
	}
	return fmt.Errorf("%w: %s", sentinel, clean(e.Message))
}

// clean keeps what a guest says from taking a terminal or a log over.
func clean(s string) string {
	const most = 500
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
