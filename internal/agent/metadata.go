//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	maxMetadataConns = 64
	metadataIdle     = 10 * time.Minute // how long a connection may say nothing
	metadataPatience = 10 * time.Second // how long an answer may wait for its reader
)

// ServeMetadata answers the older protocol, a line of JSON each way, on the listener until ctx ends: what it sets are the same variables and secrets.
func (s *Server) ServeMetadata(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel() // before that wait
	room := make(chan struct{}, maxMetadataConns)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close() // too many
			continue
		}
		serving.Go(func() {
			defer func() { <-room }()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			s.metadata(conn)
		})
	}
}

// metadata answers line by line, in order, until the host goes or sends a line that is too long.
func (s *Server) metadata(conn net.Conn) {
	in := bufio.NewReaderSize(conn, wire.MaxLine+1)
	for {
		conn.SetReadDeadline(time.Now().Add(metadataIdle))
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !long && !(errors.Is(err, io.EOF) && len(line) > 0) {
			return
		}
		reply := wire.MetadataReply{Error: "the line is longer than 64 KiB"}
		if !long {
			reply = s.metadataReply(line)
		}
		clear(line)
		text, _ := json.Marshal(reply)
		conn.SetWriteDeadline(time.Now().Add(metadataPatience))
		if _, err := conn.Write(append(text, '\n')); err != nil || long {
			return
		}
	}
}

func (s *Server) metadataReply(line []byte) wire.MetadataReply {
	var request wire.MetadataRequest
	if json.Unmarshal(line, &request) != nil { // the error may have a part of a secret
		return wire.MetadataReply{Error: "the line is no request in JSON"}
	}
	defer clear(request.Value)
	var err error
	switch request.Op {
	case "ping":
	case "set_env":
		err = s.env.merge(request.Env)
	case "set_secret":
		err = s.secrets.set(request.Name, request.Value)
	default:
		err = refuse(wire.CodeInvalid, "op %.80q (it must be set_env, set_secret or ping)", request.Op)
	}
	if err != nil {
		return wire.MetadataReply{ID: request.ID, Error: err.Error()}
	}
	return wire.MetadataReply{ID: request.ID, OK: true}
}
