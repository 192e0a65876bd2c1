//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
)

func plainExec(ctx context.Context) error { return exec.CommandContext(ctx, "true").Run() }

// plainCat sends data through a socket into a cat and back through the socket, without any protocol.
func plainCat(ctx context.Context, dir string, data []byte) error {
	listener, err := net.Listen("unix", filepath.Join(dir, "plain"))
	if err != nil {
		return err
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() { served <- serveCat(ctx, listener) }()
	conn, err := net.Dial("unix", filepath.Join(dir, "plain"))
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, bytes.NewReader(data))
		sent <- errors.Join(err, conn.(*net.UnixConn).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, conn)
	if n != int64(len(data)) && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, <-sent, <-served)
}

func serveCat(ctx context.Context, listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	cat := exec.CommandContext(ctx, "cat")
	cat.Stdin, cat.Stdout = struct{ io.Reader }{conn}, struct{ io.Writer }{conn}
	return cat.Run()
}
