//go:build linux

package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	askPatience = 5 * time.Second // what a question and its answer may take
	maxLine     = 1 << 20
)

// failure is the answer to what can't be done.
type failure struct {
	Error string `json:"error"`
}

// Answer serves who asks a helper by Ask, until the listener is closed. A question is one line of JSON, and so is its answer. What is still being answered then is among serving.
func Answer[Q, A any](listener net.Listener, serving *sync.WaitGroup, do func(Q) (A, error)) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // such as too many open files
			continue
		}
		serving.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(askPatience))
			var question Q
			if json.NewDecoder(io.LimitReader(conn, maxLine)).Decode(&question) != nil {
				return
			}
			answer, err := do(question)
			if err != nil {
				json.NewEncoder(conn).Encode(failure{err.Error()})
				return
			}
			json.NewEncoder(conn).Encode(answer)
		})
	}
}

// Ask asks a helper, of which errors say who it is. An error of the network is of one that does not live.
func Ask[A any](ctx context.Context, who string, dial func(context.Context) (net.Conn, error), question any) (answer A, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(question); err != nil {
		return answer, err
	}
	var line json.RawMessage
	if err := json.NewDecoder(io.LimitReader(conn, maxLine)).Decode(&line); err != nil {
		return answer, fmt.Errorf("%s's answer: %w", who, err)
	}
	var failed failure
	if err := errors.Join(json.Unmarshal(line, &failed), json.Unmarshal(line, &answer)); err != nil {
		return answer, fmt.Errorf("%s's answer: %w", who, err)
	}
	if failed.Error != "" {
		return answer, errors.New(who + ": " + failed.Error)
	}
	return answer, nil
}
