module github.com/tangle-network/microvm-runtime/tools

go 1.26.0
