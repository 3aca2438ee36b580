require("http").createServer((request, response) => response.end("ok\n")).listen(+process.argv[2], "127.0.0.1");
